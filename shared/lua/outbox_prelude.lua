-- Put in front of the scripts that move webhook deliveries. ARGV[1] is the prefix of all keys.

local prefix = ARGV[1]
local due = prefix .. 'deliveries:due'
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
