-- Record a job, put it in its lane and remember its idempotency key.
-- ARGV: prefix, id, spec, model, lane, tenant, body_hash, idempotency_key ('' = none), idempotency_ttl_ms, queue_max,
--       webhook ('' = none), webhook_events (',a,b,'), file_token
-- Returns {'created' | 'same', id}, {'conflict'} or {'full', depth}.
local spec, model, lane, tenant, body_hash = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local idempotency = ARGV[8] ~= '' and (prefix .. 'idempotency:' .. tenant .. ':' .. ARGV[8]) or nil

local recorded = redis.call('HMGET', job, 'tenant', 'body_hash')
if recorded[1] then
  -- Either a lost reply of our own, or somebody chose the id.
  if recorded[1] == tenant and recorded[2] == body_hash then return { 'same', id } end
  return { 'conflict' }
end
if idempotency then
  local first = redis.call('HMGET', idempotency, 'id', 'body_hash')
  if first[1] then
    if first[2] == body_hash then return { 'same', first[1] } end
    return { 'conflict' }
  end
end

local depth = 0
for _, name in ipairs(LANES) do
  depth = depth + redis.call('ZCARD', queued_key(model, name))
end
if depth >= tonumber(ARGV[10]) then return { 'full', depth } end

local seq = redis.call('INCR', prefix .. 'seq')
redis.call('HSET', job, 'spec', spec, 'model', model, 'lane', lane, 'tenant', tenant, 'body_hash', body_hash,
  'seq', seq, 'created_ms', now, 'fence', 0, 'crashes', 0, 'file_token', ARGV[13])
if ARGV[11] ~= '' then
  redis.call('HSET', job, 'webhook', ARGV[11], 'webhook_events', ARGV[12])
end
enter_lane(lane)
redis.call('ZADD', prefix .. 'jobs:' .. tenant, seq, id)
redis.call('SET', prefix .. 'file:' .. ARGV[13], id)
if idempotency then
  redis.call('HSET', idempotency, 'id', id, 'body_hash', body_hash)
  redis.call('PEXPIRE', idempotency, ARGV[9])
end
return { 'created', id }
