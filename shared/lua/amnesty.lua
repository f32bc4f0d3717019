-- Tell whether leases must not be judged now. While this server is frozen or away no owner can renew its lease, and nobody asks
-- this question either: so a long time since it was asked last gives everybody one lease's time. It is the server's own clock
-- that tells, whoever asks, and a clock that jumps looks the same.
-- ARGV: prefix, '', gap_ms (longer without a question is an absence), amnesty_ms
-- Returns 1 while the amnesty lasts, else 0.
local asked = prefix .. 'amnesty'
local before = redis.call('HMGET', asked, 'asked_ms', 'until_ms')
local until_ms = tonumber(before[2] or 0)
if now - tonumber(before[1] or 0) > tonumber(ARGV[3]) then until_ms = now + tonumber(ARGV[4]) end
redis.call('HSET', asked, 'asked_ms', now, 'until_ms', until_ms)
return now < until_ms and 1 or 0
