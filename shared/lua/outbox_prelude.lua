-- Put in front of the scripts that move webhook deliveries. ARGV[1] is the prefix of all keys.
--
-- A new delivery stands in `due` under the moment at which it is to be tried. From there it goes into the line of its receiver
-- (scheme, host and port), so that the line of one that hangs is nobody else's. While somebody tries a delivery it stands in
-- `due` again, under the moment at which that somebody must have died, and among its receiver's `busy`. `receivers` holds
-- those with a line, under the moment from which it may be served; `silent` counts a receiver's tries without any answer.

local prefix = ARGV[1]
local due = prefix .. 'deliveries:due'
local dead = prefix .. 'deliveries:dead'
local receivers = prefix .. 'deliveries:receivers'
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local TRIES_KEPT = 20

local function key_of(id) return prefix .. 'delivery:' .. id end
local function line_of(receiver) return prefix .. 'deliveries:line:' .. receiver end
local function busy_of(receiver) return prefix .. 'deliveries:busy:' .. receiver end
local function silent_of(receiver) return prefix .. 'deliveries:silent:' .. receiver end

local function receiver_of(id)
  local url = redis.call('HGET', key_of(id), 'url') or ''
  return string.lower(string.match(url, '^%a+://[^/?#]*') or '')
end

-- Add to what is told of a delivery's tries.
local function note_try(id, note)
  local tries = cjson.decode(redis.call('HGET', key_of(id), 'tries') or '[]')
  tries[#tries + 1] = { now, note }
  if #tries > TRIES_KEPT then table.remove(tries, 1) end
  redis.call('HSET', key_of(id), 'tries', cjson.encode(tries), 'note', note)
end

local function bury(id)
  redis.call('HSET', key_of(id), 'state', 'dead')
  redis.call('ZADD', dead, now, id)
end
