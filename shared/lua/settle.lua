-- Record what became of one try of a delivery.
-- ARGV: prefix, delivery, attempts before this try, state ('pending' = try again), retry_ms, note, keep_ms
-- Returns 1, or 0 when that try is on record already.
local delivery, state = ARGV[2], ARGV[4]
local key = prefix .. 'delivery:' .. delivery
local seen = redis.call('HMGET', key, 'state', 'attempts')
if seen[1] ~= 'pending' or seen[2] ~= ARGV[3] then return 0 end
redis.call('HSET', key, 'state', state, 'attempts', seen[2] + 1, 'tried_ms', now, 'note', ARGV[6])
if state == 'pending' then
  redis.call('ZADD', due, now + tonumber(ARGV[5]), delivery)
  return 1
end
redis.call('ZREM', due, delivery)
if state == 'dead' then
  redis.call('ZADD', prefix .. 'deliveries:dead', now, delivery)
else
  redis.call('PEXPIRE', key, ARGV[7])
end
return 1
