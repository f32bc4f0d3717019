-- Put in front of every script. One script is one move of a job: it runs alone in Redis, on Redis's own clock, and may be
-- replayed by a client that did not get the reply.
--
-- ARGV[1] is the prefix of all keys, ARGV[2] the job's id. Keys are built here from the prefix, so the scripts need a
-- single Redis (or Sentinel), not a Cluster.

local prefix, id = ARGV[1], ARGV[2]
local job = prefix .. 'job:' .. id
local leases = prefix .. 'leases'
local rows = prefix .. 'rows'
local LANES = { 'recovery', 'high', 'normal', 'low' }

local function clock_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local now = clock_ms()

local function get(field)
  return redis.call('HGET', job, field)
end

local function queued_key(model, lane)
  return prefix .. 'queued:' .. model .. ':' .. lane
end

-- Where the latest picture of an order is noted, so that the same order can be answered with it: of the same tenant, or of
-- anybody, where tenants share what they have had drawn. No tenant can have this name.
local ANYBODY = '*'
local function stored_key(tenant, render_key)
  return prefix .. 'stored:' .. tenant .. ':' .. render_key
end

local function notify()
  redis.call('PUBLISH', prefix .. 'changed:' .. id, get('status'))
end

-- Write one webhook delivery into the outbox if the job asked for this event. The record as it is now is kept with it: the
-- body that the receiver gets, at every try, is the prediction at this moment.
local function emit(event)
  local url, events = get('webhook'), get('webhook_events')
  if not url or not string.find(events, ',' .. event .. ',', 1, true) then
    return
  end
  local n = redis.call('HINCRBY', job, 'deliveries', 1)
  local delivery = id .. '.' .. n
  redis.call('HSET', prefix .. 'delivery:' .. delivery,
    'job', id, 'event', event, 'seq', n, 'url', url, 'state', 'pending', 'attempts', 0,
    'created_ms', now, 'record', cjson.encode(redis.call('HGETALL', job)))
  redis.call('ZADD', prefix .. 'deliveries:due', now, delivery)
end

-- What the job would have been answered with is void once it waits for a worker of its own.
local function enter_lane(lane)
  redis.call('HDEL', job, 'reused_from')
  redis.call('HSET', job, 'status', 'queued', 'waiting_lane', lane, 'queued_ms', now, 'published_ms', now,
    'republished', 0)
  redis.call('ZADD', queued_key(get('model'), lane), get('seq'), id)
  redis.call('SADD', prefix .. 'waiting:' .. get('tenant'), id)
end

-- How many workers of a model show signs of life, in the keys of shared/worker_registry.py.
local function live_workers(model)
  local live = 0
  for _, name in ipairs(redis.call('SMEMBERS', prefix .. 'workers')) do
    if redis.call('HGET', prefix .. 'worker:' .. name, 'model') == model then live = live + 1 end
  end
  return live
end

-- What the time to a job's end can be told from: its model's mean duration in ms (-1: none has ended yet), how many workers
-- serve the model, and when each of its running jobs was begun.
local function traffic(model)
  local begun = {}
  local running = redis.call('ZRANGE', prefix .. 'running:' .. model, 0, -1, 'WITHSCORES')
  for i = 2, #running, 2 do begun[#begun + 1] = tonumber(running[i]) end
  return { math.floor(tonumber(redis.call('HGET', prefix .. 'durations', model) or -1)), live_workers(model), begun }
end

-- A job's record as a flat list, how many jobs are served before it (-1 when it is not waiting), the clock, and the traffic
-- around it ({} when it has ended).
local function view(of)
  local key, ahead = prefix .. 'job:' .. of, 0
  local model = redis.call('HGET', key, 'model')
  if not model then return {}, -1, now, {} end
  if redis.call('HEXISTS', key, 'completed_ms') == 1 then return redis.call('HGETALL', key), -1, now, {} end
  for _, lane in ipairs(LANES) do
    local rank = redis.call('ZRANK', queued_key(model, lane), of)
    if rank then return redis.call('HGETALL', key), ahead + rank, now, traffic(model) end
    ahead = ahead + redis.call('ZCARD', queued_key(model, lane))
  end
  return redis.call('HGETALL', key), -1, now, traffic(model)
end

local function leave_lane()
  redis.call('ZREM', queued_key(get('model'), get('waiting_lane')), id)
  redis.call('SREM', prefix .. 'waiting:' .. get('tenant'), id)
end

local function drop_lease()
  redis.call('ZREM', leases, id)
  redis.call('ZREM', prefix .. 'running:' .. get('model'), id)
  redis.call('HDEL', job, 'worker', 'delivery_token')
end

-- Count an end by model, status and reason: for `succeeded` whether it was drawn, else the error's code or whose wish it was.
local function count_end(status)
  local reason = string.match(get('error') or '', '^{"code": *"([%w_]+)"')
  if status == 'succeeded' then reason = get('reused_from') and 'reused' or 'rendered' end
  redis.call('HINCRBY', prefix .. 'ended', get('model') .. '|' .. status .. '|' .. (reason or 'owner'), 1)
end

-- Give the waiting job to a worker: one fence higher, with a lease. Returns its record.
local function begin(worker, token, lease_ms)
  local model, lane = get('model'), get('waiting_lane')
  leave_lane()
  local fence = redis.call('HINCRBY', job, 'fence', 1)
  redis.call('HSET', job, 'status', 'running', 'worker', worker, 'delivery_token', token, 'started_ms', now, 'step', 0,
    'attempt_logged', 0)
  redis.call('ZADD', leases, now + lease_ms, id)
  redis.call('ZADD', prefix .. 'running:' .. model, now, id)
  local last = prefix .. 'last:' .. model
  if lane ~= 'recovery' and tonumber(get('seq')) > tonumber(redis.call('HGET', last, lane) or 0) then
    redis.call('HSET', last, lane, get('seq'))
  end
  redis.call('HSET', last, 'claimed_ms', now)
  if fence == 1 then emit('start') end
  notify()
  return redis.call('HGETALL', job)
end

-- The reply to `begin` was lost, and until the worker has one nobody renews the lease: it starts anew. Returns the record.
local function begun_before(lease_ms)
  redis.call('ZADD', leases, now + lease_ms, id)
  return redis.call('HGETALL', job)
end

-- The one way into a terminal status.
local function complete(status, retention_ms)
  local reason = get('cancel_reason')
  if status == 'canceled' and reason then redis.call('HSET', job, 'error', reason) end
  -- Its owner may have asked for the data to go as soon as no worker holds the job.
  local expires_ms = get('unwanted') and now or now + retention_ms
  redis.call('HSET', job, 'status', status, 'completed_ms', now, 'expires_ms', expires_ms)
  redis.call('ZADD', prefix .. 'expiring', expires_ms, id)
  redis.call('ZREM', prefix .. 'deadlines', id)
  redis.call('DEL', prefix .. 'preview:' .. id)
  -- A worker that died may have stored a picture that nobody names; one that froze has until then to remove its own.
  local attempts = tonumber(get('fence'))
  if attempts > 1 or (attempts == 1 and status ~= 'succeeded') then
    redis.call('ZADD', prefix .. 'leftovers', now + 30000, id)
  end
  count_end(status)
  emit('completed')
  notify()
end

-- Does the caller hold this running job? Every write of a worker passes through here.
local function holds(fence)
  return get('status') == 'running' and get('fence') == fence
end
