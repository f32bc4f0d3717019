-- End a running job: the one point at which an outcome becomes true.
-- ARGV: prefix, id, fence, status, result ('' = none), error ('' = none), retention_ms, weights (digest; '' = unknown),
--       shared (1 = other tenants may have the picture too)
-- Returns {outcome, record}: 1 = done, 2 = it was done by this very fence before (the reply was lost), 0 = refused: another
-- fence holds or ended the job.
local function note_stored(owner)
  local key, current = stored_key(owner, get('render_key')), redis.call('HGET', prefix .. 'weights', get('model'))
  local before = redis.call('GET', key)
  -- One that is not handed out now (of a batch, or of a worker with other weights) must not hide one that is.
  local hides = before and ARGV[8] ~= current and redis.call('HGET', prefix .. 'job:' .. before, 'weights') == current
  if not hides then redis.call('SET', key, id, 'PX', ARGV[7]) end
end

if not holds(ARGV[3]) then
  return { get('ended_by') == ARGV[3] and 2 or 0, redis.call('HGETALL', job) }
end
redis.call('HSET', job, 'ended_by', ARGV[3])
if ARGV[5] ~= '' then
  redis.call('HSET', job, 'result', ARGV[5])
  emit('output')
end
if ARGV[6] ~= '' then redis.call('HSET', job, 'error', ARGV[6]) end
if ARGV[4] == 'succeeded' then
  if not get('reused_from') then
    -- An exponential mean follows a change of hardware within some ten jobs, and one slow job does not bend it.
    local durations, model, took = prefix .. 'durations', get('model'), now - get('started_ms')
    local mean = tonumber(redis.call('HGET', durations, model) or took)
    redis.call('HSET', durations, model, string.format('%.3f', mean + 0.2 * (took - mean)))
  end
  if ARGV[8] ~= '' then
    redis.call('HSET', job, 'weights', ARGV[8])
    note_stored(get('tenant'))
    if ARGV[9] == '1' then note_stored(ANYBODY) end
  end
end
drop_lease()
complete(ARGV[4], tonumber(ARGV[7]))
return { 1, redis.call('HGETALL', job) }
