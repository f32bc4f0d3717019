-- Tell whether leases must not be judged now. While this server is frozen or away no owner can renew its lease, and nobody asks
-- this question either: so a long time since it was asked last gives everybody one lease's time. It is the server's own clock
-- that tells, whoever asks, and a clock that jumps forward looks the same. One that was set back would leave the dead their
-- leases, and everybody an amnesty, until it has caught up: neither lasts for longer than a lease from now.
-- ARGV: prefix, '', gap_ms (longer without a question is an absence), lease_ms
-- Returns 1 while the amnesty lasts, else 0.
local asked = prefix .. 'amnesty'
local before = redis.call('HMGET', asked, 'asked_ms', 'until_ms')
local asked_ms, lease_end_ms = tonumber(before[1] or 0), now + tonumber(ARGV[4])
local until_ms = math.min(tonumber(before[2] or 0), lease_end_ms)
if now < asked_ms then
  for _, held in ipairs(redis.call('ZRANGEBYSCORE', leases, '(' .. lease_end_ms, '+inf')) do
    redis.call('ZADD', leases, lease_end_ms, held)
  end
end
if now - asked_ms > tonumber(ARGV[3]) then until_ms = lease_end_ms end
redis.call('HSET', asked, 'asked_ms', now, 'until_ms', until_ms)
return now < until_ms and 1 or 0
