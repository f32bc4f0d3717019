-- Record a job, put it in its lane and remember its idempotency key.
-- ARGV: prefix, id, spec, model, lane, tenant, body_hash, idempotency_key ('' = none), idempotency_ttl_ms, queue_max,
--       webhook ('' = none), webhook_events (',a,b,'), file_token, repeat_window_ms, recent_ttl_ms,
--       cancel_after_ms (0 = never), render_key, reuse (1 = a stored picture may be the answer), lease_ms,
--       tenant_max (0 = no bound), shared (1 = also a picture of another tenant), retry (-1 = the caller does not count),
--       retry_window_ms, traceparent ('' = none)
-- Returns {'created' | 'same', record, position, clock_ms, traffic}, {'reused', record, record of the job whose picture it is},
-- {'taken'} (the id is another tenant's), {'other_body'} (of the id), {'conflict'} (of the key), {'full', depth} or
-- {'tenant_full', depth}.
local spec, model, lane, tenant, body_hash = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local idempotency = ARGV[8] ~= '' and (prefix .. 'idempotency:' .. tenant .. ':' .. ARGV[8]) or nil
local recent = prefix .. 'recent:' .. tenant .. ':' .. body_hash

local function answer(outcome, of)
  return { outcome, view(of) }
end

-- A job that holds the picture of this very order, drawn with the weights that the model's workers have now.
local function stored_source()
  if ARGV[18] ~= '1' then return nil end
  for _, owner in ipairs(ARGV[21] == '1' and { tenant, ANYBODY } or { tenant }) do
    local source = redis.call('GET', stored_key(owner, ARGV[17]))
    local weights = source and redis.call('HGET', prefix .. 'job:' .. source, 'weights')
    if weights and weights == redis.call('HGET', prefix .. 'weights', model) then return source end
  end
  return nil
end

-- The job that this request may be the repeat of, because an answer got lost: id, created_ms and how old it may be.
-- A caller that counts says with `retry` that it sent this before, so the request whose answer it misses bore a smaller number.
-- Where that one was refused there is no job to be found: each refusal leaves a mark, which one retry takes up.
local retry = tonumber(ARGV[22])
local function earlier()
  for n = retry, 1, -1 do
    if tonumber(redis.call('HGET', recent, 'refused:' .. n) or 0) > 0 then
      redis.call('HINCRBY', recent, 'refused:' .. n, -1)
      return nil
    end
    local found = redis.call('HMGET', recent, 'id:' .. n, 'at_ms:' .. n)
    if found[1] then return found[1], found[2], tonumber(ARGV[23]) end
  end
  local found = redis.call('HMGET', recent, 'id', 'at_ms')
  return found[1], found[2], tonumber(ARGV[14])
end

-- The job is the caller's own: it is answered with the picture of this one.
local function hand_over(source)
  redis.call('ZADD', leases, now + tonumber(ARGV[19]), id)
  return { 'reused', redis.call('HGETALL', job), redis.call('HGETALL', prefix .. 'job:' .. source) }
end

local recorded = redis.call('HMGET', job, 'tenant', 'body_hash', 'file_token', 'status', 'reused_from')
if recorded[1] then
  if recorded[1] ~= tenant then return { 'taken' } end
  if recorded[2] ~= body_hash then return { 'other_body' } end
  -- The file token is drawn anew for each request: the same one means that only our reply was lost, and nobody was told yet.
  local untold = recorded[3] == ARGV[13]
  local source = recorded[5] and redis.call('EXISTS', prefix .. 'job:' .. recorded[5]) == 1 and recorded[5]
  if untold and recorded[4] == 'running' and source then return hand_over(source) end
  return answer(untold and recorded[4] == 'queued' and 'created' or 'same', id)
end
if idempotency then
  local first = redis.call('HMGET', idempotency, 'id', 'body_hash')
  if first[1] and redis.call('EXISTS', prefix .. 'job:' .. first[1]) == 1 then
    if first[2] == body_hash then return answer('same', first[1]) end
    return { 'conflict' }
  end
end

-- A job that was called off since, or came to nothing, is no answer to a repeat. When only our reply to a refusal was lost,
-- its mark is there already.
local replayed = redis.call('HGET', recent, 'refused_id') == id
local before, at_ms, window_ms
if not replayed then before, at_ms, window_ms = earlier() end
-- Without a window none is one, not even when the clock was set back since.
if before and window_ms >= 0 and now - tonumber(at_ms) <= window_ms then
  local found = redis.call('HMGET', prefix .. 'job:' .. before, 'status', 'data_removed')
  local voided = found[2] or found[1] == 'failed' or found[1] == 'canceled'
  if found[1] and not voided then return answer('same', before) end
end

local source, depth = stored_source(), 0
for _, name in ipairs(LANES) do
  depth = depth + redis.call('ZCARD', queued_key(model, name))
end
local own, own_max = redis.call('SCARD', prefix .. 'waiting:' .. tenant), tonumber(ARGV[20])
local full = depth >= tonumber(ARGV[10]) and { 'full', depth } or own_max > 0 and own >= own_max and { 'tenant_full', own }
if not source and full then
  if retry >= 0 and not replayed then
    redis.call('HINCRBY', recent, 'refused:' .. retry + 1, 1)
    redis.call('HSET', recent, 'refused_id', id)
    redis.call('PEXPIRE', recent, ARGV[15])
  end
  return full
end

-- The refusal whose reply was lost was none in the end.
if replayed then redis.call('HINCRBY', recent, 'refused:' .. retry + 1, -1) end

local seq = redis.call('INCR', prefix .. 'seq')
redis.call('HSET', job, 'spec', spec, 'model', model, 'lane', lane, 'tenant', tenant, 'body_hash', body_hash,
  'seq', seq, 'created_ms', now, 'fence', 0, 'crashes', 0, 'file_token', ARGV[13], 'render_key', ARGV[17])
if ARGV[11] ~= '' then
  redis.call('HSET', job, 'webhook', ARGV[11], 'webhook_events', ARGV[12])
end
if ARGV[24] ~= '' then redis.call('HSET', job, 'traceparent', ARGV[24]) end
redis.call('ZADD', prefix .. 'jobs:' .. tenant, seq, id)
redis.call('ZADD', prefix .. 'jobs', seq, id)
redis.call('SET', prefix .. 'file:' .. ARGV[13], id)
redis.call('HINCRBY', prefix .. 'runs', model, 1)
redis.call('HSET', recent, 'id', id, 'at_ms', now)
if retry >= 0 then redis.call('HSET', recent, 'id:' .. retry + 1, id, 'at_ms:' .. retry + 1, now) end
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
  emit('start')
  return hand_over(source)
end
enter_lane(lane)
return answer('created', id)
