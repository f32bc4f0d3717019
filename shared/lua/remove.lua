-- Forget what a finished job carried: its input, logs and pictures, and what its webhooks said. The row itself stays readable
-- for a while.
-- ARGV: prefix, id, spec and result without what is removed ('' = no result), row_retention_ms, fence (of the job as it was
--       read: one that was queued again since is not meant)
-- Returns 1 when the data is gone, 0 when the job has not ended.
if not get('completed_ms') or get('fence') ~= ARGV[6] then return 0 end
redis.call('HSET', job, 'spec', ARGV[3], 'data_removed', 1)
redis.call('HDEL', job, 'logs', 'expires_ms')
if ARGV[4] ~= '' then redis.call('HSET', job, 'result', ARGV[4]) end
for _, owner in ipairs({ get('tenant'), ANYBODY }) do
  local stored = stored_key(owner, get('render_key'))
  if redis.call('GET', stored) == id then redis.call('DEL', stored) end
end
for n = 1, tonumber(get('deliveries') or 0) do
  local delivery = prefix .. 'delivery:' .. id .. '.' .. n
  -- One that is still on its way is the only word of the outcome that its receiver gets.
  if redis.call('HGET', delivery, 'state') == 'delivered' then redis.call('DEL', delivery) end
end
redis.call('ZREM', prefix .. 'expiring', id)
redis.call('ZREM', prefix .. 'leftovers', id)
redis.call('ZADD', rows, 'NX', now + tonumber(ARGV[5]), id)
return 1
