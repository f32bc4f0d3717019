-- Take the first in line of a model's waiting jobs.
-- ARGV: prefix, '', model, worker, token, lease_ms
-- Returns the record's fields, or {} when none waits.
local model, worker, token, lease_ms = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])

local function choose(of)
  id, job = of, prefix .. 'job:' .. of
end

-- What the worker took last, for as long as it may ask again because the reply got lost.
local taken = prefix .. 'taken:' .. worker
local before = redis.call('HMGET', taken, 'token', 'id')
if before[1] == token then
  choose(before[2])
  return get('status') == 'running' and get('delivery_token') == token and begun_before(lease_ms) or {}
end

for _, lane in ipairs(LANES) do
  local first = redis.call('ZRANGE', queued_key(model, lane), 0, 0)[1]
  while first do
    choose(first)
    if get('status') == 'queued' then
      redis.call('HSET', taken, 'token', token, 'id', id)
      redis.call('PEXPIRE', taken, lease_ms)
      return begin(worker, token, lease_ms)
    end
    -- An id without a record would stand before all others for good.
    redis.call('ZREM', queued_key(model, lane), first)
    first = redis.call('ZRANGE', queued_key(model, lane), 0, 0)[1]
  end
end
return {}
