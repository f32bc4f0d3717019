-- Take a running job from a worker that gave no sign of life.
-- ARGV: prefix, id, fence ('' = only if the lease ran out), max_attempts, error, retention_ms
-- Returns the status the job has now, or '' when its lease still holds.
if get('status') ~= 'running' then
  redis.call('ZREM', leases, id)
  -- The claim that is vouched dead gave the job back already: the reply was lost, and nobody may have been told.
  if ARGV[3] ~= '' and get('status') == 'queued' and get('fence') == ARGV[3] then return 'queued' end
  return ''
end
if ARGV[3] ~= '' then
  if get('fence') ~= ARGV[3] then return '' end
else
  local lease = tonumber(redis.call('ZSCORE', leases, id) or 0)
  if lease > now then return '' end
end
redis.call('HINCRBY', prefix .. 'lost', get('model') .. '|' .. (ARGV[3] ~= '' and 'guardian' or 'lease'), 1)
-- A claim that nobody came to hold (its reply was lost and its worker gone, or whoever took it died before a first sign of
-- life) killed nobody, and is not charged. That does not go on for ever: what it is given to might die before it can say so.
local is_held = ARGV[3] ~= '' or get('held') == get('fence')
local crashes = 0
if is_held or redis.call('HINCRBY', job, 'unheld', 1) > tonumber(ARGV[4]) then
  crashes = redis.call('HINCRBY', job, 'crashes', 1)
end
drop_lease()
if get('cancel') then
  complete('canceled', tonumber(ARGV[6]))
  return 'canceled'
end
if crashes >= tonumber(ARGV[4]) then
  redis.call('HSET', job, 'error', ARGV[5])
  redis.call('ZADD', prefix .. 'dead', now, id)
  complete('failed', tonumber(ARGV[6]))
  return 'failed'
end
enter_lane('recovery')
notify()
return 'queued'
