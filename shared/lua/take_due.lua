-- Take deliveries whose time has come, and keep others from taking them for a while. Whoever takes one and dies loses it to
-- the next taker when that while is over.
-- ARGV: prefix, limit, hold_ms, how many of one receiver may be tried at once, silent tries after which it is one,
--       patience_ms: a delivery that a silent receiver has kept waiting for longer is dead
-- Returns their ids.
local limit, until_ms, at_once = tonumber(ARGV[2]), now + tonumber(ARGV[3]), tonumber(ARGV[4])
local silent_after, patience_ms = tonumber(ARGV[5]), tonumber(ARGV[6])

local fresh = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 1000)
for i = 1, #fresh, 2 do
  redis.call('ZREM', due, fresh[i])
  -- A delivery that was removed, or settled by a taker that was thought dead, ends here.
  if redis.call('HGET', key_of(fresh[i]), 'state') == 'pending' then
    local receiver = receiver_of(fresh[i])
    redis.call('ZADD', line_of(receiver), fresh[i + 1], fresh[i])
    redis.call('ZADD', receivers, 'NX', now, receiver)
  end
end

local taken = {}
for _, receiver in ipairs(redis.call('ZRANGEBYSCORE', receivers, '-inf', now, 'LIMIT', 0, limit)) do
  local line, busy, free = line_of(receiver), busy_of(receiver), at_once
  if tonumber(redis.call('GET', silent_of(receiver)) or 0) >= silent_after then
    free = 1
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', line, '-inf', now - patience_ms, 'LIMIT', 0, 100)) do
      redis.call('ZREM', line, id)
      note_try(id, 'not tried any more: the receiver has not answered for too long')
      bury(id)
    end
  end
  redis.call('ZREMRANGEBYSCORE', busy, '-inf', now)
  free = math.min(free - redis.call('ZCARD', busy), limit - #taken)
  if free > 0 then
    for _, id in ipairs(redis.call('ZRANGE', line, 0, free - 1)) do
      redis.call('ZREM', line, id)
      redis.call('ZADD', due, until_ms, id)
      redis.call('ZADD', busy, until_ms, id)
      redis.call('PEXPIRE', busy, ARGV[3])
      taken[#taken + 1] = id
    end
  end
  -- Whoever was served goes behind the others.
  if redis.call('EXISTS', line) == 1 then
    redis.call('ZADD', receivers, now, receiver)
  else
    redis.call('ZREM', receivers, receiver)
  end
end
return taken
