-- Call a job off: at once while it waits, by a flag that its worker obeys at the next step while it runs.
-- ARGV: prefix, id, retention_ms, reason ('' = the owner's wish), unwanted (1 = its data is to go when it has ended)
-- Returns 'canceled', 'requested', 'over' (it had ended before) or '' (no such job).
local status = get('status')
if not status then return '' end
if status ~= 'queued' and status ~= 'running' then return 'over' end
-- Called off twice before its worker lets go, it ends for the first reason.
if ARGV[4] ~= '' and not get('cancel') then redis.call('HSET', job, 'cancel_reason', ARGV[4]) end
if ARGV[5] == '1' then redis.call('HSET', job, 'unwanted', 1) end
if status == 'queued' then
  leave_lane()
  complete('canceled', tonumber(ARGV[3]))
  return 'canceled'
end
redis.call('HSET', job, 'cancel', now)
-- However its worker lets go, its deadline has nothing left to do; the sweep would look at it first, again and again.
redis.call('ZREM', prefix .. 'deadlines', id)
return 'requested'
