-- Take deliveries whose time has come, and keep others from taking them for a while. Whoever takes one and dies loses it to
-- the next taker when that while is over.
-- ARGV: prefix, limit, hold_ms
-- Returns their ids.
local ids = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, tonumber(ARGV[2]))
for _, id in ipairs(ids) do
  redis.call('ZADD', due, now + tonumber(ARGV[3]), id)
end
return ids
