-- Record a job, put it in its lane and remember its idempotency key.
-- ARGV: prefix, id, spec, model, lane, tenant, body_hash, idempotency_key ('' = none), idempotency_ttl_ms, queue_max,
--       webhook ('' = none), webhook_events (',a,b,'), file_token, repeat_window_ms, recent_ttl_ms,
--       cancel_after_ms (0 = never), render_key, reuse (1 = a stored picture may be the answer), lease_ms,
--       tenant_max (0 = no bound)
-- Returns {'created' | 'same', record, position, clock_ms, traffic}, {'reused', record, record of the job whose picture it is},
-- {'conflict'}, {'full', depth} or {'tenant_full', depth}.
local spec, model, lane, tenant, body_hash = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local idempotency = ARGV[8] ~= '' and (prefix .. 'idempotency:' .. tenant .. ':' .. ARGV[8]) or nil
local recent = prefix .. 'recent:' .. tenant .. ':' .. body_hash

local function answer(outcome, of)
  return { outcome, view(of) }
end

-- A job of the tenant that holds the picture of this very order, drawn with the weights that the model's workers have now.
local function stored_source()
  if ARGV[18] ~= '1' then return nil end
  local source = redis.call('GET', stored_key(tenant, ARGV[17]))
  local weights = source and redis.call('HGET', prefix .. 'job:' .. source, 'weights')
  if weights and weights == redis.call('HGET', prefix .. 'weights', model) then return source end
  return nil
end

local recorded = redis.call('HMGET', job, 'tenant', 'body_hash', 'file_token', 'status')
if recorded[1] then
  if recorded[1] ~= tenant or recorded[2] ~= body_hash then return { 'conflict' } end
  -- The file token is drawn anew for each request: the same one means that only our reply was lost, and nobody was told yet.
  local untold = recorded[3] == ARGV[13] and recorded[4] == 'queued'
  return answer(untold and 'created' or 'same', id)
end
if idempotency then
  local first = redis.call('HMGET', idempotency, 'id', 'body_hash')
  if first[1] and redis.call('EXISTS', prefix .. 'job:' .. first[1]) == 1 then
    if first[2] == body_hash then return answer('same', first[1]) end
    return { 'conflict' }
  end
end

-- The caller says that this may be a repeat of a request whose answer got lost. One that was called off since, or came to
-- nothing, is no answer to it.
local before = redis.call('HMGET', recent, 'id', 'at_ms')
if before[1] and now - tonumber(before[2]) <= tonumber(ARGV[14]) then
  local found = redis.call('HMGET', prefix .. 'job:' .. before[1], 'status', 'data_removed')
  local voided = found[2] or found[1] == 'failed' or found[1] == 'canceled'
  if found[1] and not voided then return answer('same', before[1]) end
end

local source, depth = stored_source(), 0
for _, name in ipairs(LANES) do
  depth = depth + redis.call('ZCARD', queued_key(model, name))
end
local own, own_max = redis.call('SCARD', prefix .. 'waiting:' .. tenant), tonumber(ARGV[20])
local full = depth >= tonumber(ARGV[10]) and { 'full', depth } or own_max > 0 and own >= own_max and { 'tenant_full', own }
if not source and full then
  -- The retry of a refused order must not be answered with an earlier one.
  redis.call('DEL', recent)
  return full
end

local seq = redis.call('INCR', prefix .. 'seq')
redis.call('HSET', job, 'spec', spec, 'model', model, 'lane', lane, 'tenant', tenant, 'body_hash', body_hash,
  'seq', seq, 'created_ms', now, 'fence', 0, 'crashes', 0, 'file_token', ARGV[13], 'render_key', ARGV[17])
if ARGV[11] ~= '' then
  redis.call('HSET', job, 'webhook', ARGV[11], 'webhook_events', ARGV[12])
end
redis.call('ZADD', prefix .. 'jobs:' .. tenant, seq, id)
redis.call('SET', prefix .. 'file:' .. ARGV[13], id)
redis.call('HINCRBY', prefix .. 'runs', model, 1)
redis.call('HSET', recent, 'id', id, 'at_ms', now)
redis.call('PEXPIRE', recent, ARGV[15])
if tonumber(ARGV[16]) > 0 then
  redis.call('HSET', job, 'deadline_ms', now + tonumber(ARGV[16]))
  redis.call('ZADD', prefix .. 'deadlines', now + tonumber(ARGV[16]), id)
end
if idempotency then
  redis.call('HSET', idempotency, 'id', id, 'body_hash', body_hash)
  redis.call('PEXPIRE', idempotency, ARGV[9])
end
if source then
  -- The caller copies the picture and ends the job; if it dies first, the lease brings the job to a worker.
  redis.call('HSET', job, 'status', 'running', 'fence', 1, 'worker', 'reuse', 'started_ms', now, 'step', 0,
    'reused_from', source)
  redis.call('ZADD', leases, now + tonumber(ARGV[19]), id)
  emit('start')
  return { 'reused', redis.call('HGETALL', job), redis.call('HGETALL', prefix .. 'job:' .. source) }
end
enter_lane(lane)
return answer('created', id)
