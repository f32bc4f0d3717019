-- Record what became of one try of a delivery.
-- ARGV: prefix, delivery, attempts before this try, state ('pending' = try again), retry_ms, note, keep_ms,
--       answered (1 = by whatever status, 0 = silence, '' = nothing was sent), silent tries after which the receiver is left
--       alone, for how long (ms)
-- Returns 1, or 0 when that try is on record already.
local delivery, state = ARGV[2], ARGV[4]
local key, receiver = key_of(delivery), receiver_of(delivery)
local seen = redis.call('HMGET', key, 'state', 'attempts')
if seen[1] ~= 'pending' or seen[2] ~= ARGV[3] then return 0 end
redis.call('ZREM', busy_of(receiver), delivery)
redis.call('ZREM', due, delivery)
redis.call('HSET', key, 'state', state, 'attempts', seen[2] + 1)
note_try(delivery, ARGV[6])
if state == 'pending' then
  redis.call('ZADD', due, now + tonumber(ARGV[5]), delivery)
elseif state == 'dead' then
  bury(delivery)
else
  redis.call('PEXPIRE', key, ARGV[7])
end
if ARGV[8] == '1' then
  redis.call('DEL', silent_of(receiver))
elseif ARGV[8] == '0' then
  local silent = redis.call('INCR', silent_of(receiver))
  redis.call('PEXPIRE', silent_of(receiver), 86400000)
  if silent >= tonumber(ARGV[9]) then redis.call('ZADD', receivers, now + tonumber(ARGV[10]), receiver) end
end
return 1
