-- Take a queued job: one fence higher, with a lease.
-- ARGV: prefix, id, worker, delivery_token, lease_ms
-- Returns the record's fields, or {} when there is nothing for this delivery to do.
local worker, token, lease_ms = ARGV[3], ARGV[4], tonumber(ARGV[5])
local status = get('status')
if status == 'running' and get('delivery_token') == token then
  return redis.call('HGETALL', job)
end
if status ~= 'queued' then return {} end

local model, lane = get('model'), get('waiting_lane')
leave_lane()
local fence = redis.call('HINCRBY', job, 'fence', 1)
redis.call('HSET', job, 'status', 'running', 'worker', worker, 'delivery_token', token, 'started_ms', now, 'step', 0)
redis.call('ZADD', leases, now + lease_ms, id)
redis.call('ZADD', prefix .. 'running:' .. model, now, id)
local last = prefix .. 'last:' .. model
if lane ~= 'recovery' and tonumber(get('seq')) > tonumber(redis.call('HGET', last, lane) or 0) then
  redis.call('HSET', last, lane, get('seq'))
end
redis.call('HSET', last, 'claimed_ms', now)
if fence == 1 then emit('start') end
notify()
return redis.call('HGETALL', job)
