-- Count what there is: for the metrics, and for whatever decides how many workers there should be. Nothing is changed.
-- ARGV: prefix, '', then the models
-- Returns {for each model {running, live workers, then waiting and age in ms of the first in line for each lane of LANES},
-- ended, lost, runs (hashes as flat lists), dead jobs, dead deliveries, pending deliveries}.
local models = {}
for i = 3, #ARGV do
  local around = traffic(ARGV[i])
  local counted = { #around[3], around[2] }
  for _, lane in ipairs(LANES) do
    local key, age_ms = queued_key(ARGV[i], lane), 0
    local first = redis.call('ZRANGE', key, 0, 0)[1]
    if first then age_ms = now - tonumber(redis.call('HGET', prefix .. 'job:' .. first, 'created_ms') or now) end
    counted[#counted + 1] = redis.call('ZCARD', key)
    counted[#counted + 1] = age_ms
  end
  models[#models + 1] = counted
end

local pending = redis.call('ZCARD', prefix .. 'deliveries:due')
for _, receiver in ipairs(redis.call('ZRANGE', prefix .. 'deliveries:receivers', 0, -1)) do
  pending = pending + redis.call('ZCARD', prefix .. 'deliveries:line:' .. receiver)
end

return { models, redis.call('HGETALL', prefix .. 'ended'), redis.call('HGETALL', prefix .. 'lost'),
  redis.call('HGETALL', prefix .. 'runs'), redis.call('ZCARD', prefix .. 'dead'),
  redis.call('ZCARD', prefix .. 'deliveries:dead'), pending }
