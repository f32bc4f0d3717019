-- Take the first in line of a model's waiting jobs, and with it those that it can be drawn together with.
-- ARGV: prefix, '', model, worker, token, lease_ms, size (of a batch; 1 = one job at a time), free (',a,b,': fields of a render
--       that jobs of a batch need not share)
-- Returns the records of the jobs taken: none, one, or as many as a batch has.
local model, worker, token, lease_ms = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local size, free = tonumber(ARGV[7]), ARGV[8]

local function choose(of)
  id, job = of, prefix .. 'job:' .. of
end

-- What the worker took last, for as long as it may ask again because the reply got lost.
local taken = prefix .. 'taken:' .. worker
local before = redis.call('HMGET', taken, 'token', 'ids')
if before[1] == token then
  local records = {}
  for of in string.gmatch(before[2], '%S+') do
    choose(of)
    if get('status') == 'running' and get('delivery_token') == token then records[#records + 1] = begun_before(lease_ms) end
  end
  return records
end

local function render_of(of)
  if redis.call('HGET', prefix .. 'job:' .. of, 'status') ~= 'queued' then return nil end
  local known, spec = pcall(cjson.decode, redis.call('HGET', prefix .. 'job:' .. of, 'spec'))
  local render = known and type(spec) == 'table' and spec.render
  return type(render) == 'table' and render or nil
end

-- Fields at their default are left out of a record. What is no plain value is never the same.
local function agree(one, other)
  for name, value in pairs(one) do
    if not string.find(free, ',' .. name .. ',', 1, true) and other[name] ~= value then return false end
  end
  return true
end

-- The jobs to take when `first` is the first in its lane: a whole batch, or it alone. Only those directly behind it ride along,
-- so nobody is overtaken. What was given back is drawn alone: it may be what its worker died of. And a batch is taken only
-- where the lane is long enough for every worker to have one, or one would idle beside it.
local function crew(lane, first)
  local alone, key = { first }, queued_key(model, lane)
  if size == 1 or lane == 'recovery' then return alone end
  if redis.call('ZCARD', key) < size * math.max(1, live_workers(model)) then return alone end
  local ids = redis.call('ZRANGE', key, 0, size - 1)
  local render = render_of(first)
  if not render or (render.num_candidates or 1) ~= 1 then return alone end
  for i = 2, size do
    local other = render_of(ids[i])
    if not other or not agree(render, other) or not agree(other, render) then return alone end
  end
  return ids
end

for _, lane in ipairs(LANES) do
  local first = redis.call('ZRANGE', queued_key(model, lane), 0, 0)[1]
  while first do
    choose(first)
    if get('status') == 'queued' then
      local ids, records = crew(lane, first), {}
      redis.call('HSET', taken, 'token', token, 'ids', table.concat(ids, ' '))
      redis.call('PEXPIRE', taken, lease_ms)
      for i, of in ipairs(ids) do
        choose(of)
        records[i] = begin(worker, token, lease_ms)
      end
      return records
    end
    -- An id without a record would stand before all others for good.
    redis.call('ZREM', queued_key(model, lane), first)
    first = redis.call('ZRANGE', queued_key(model, lane), 0, 0)[1]
  end
end
return {}
