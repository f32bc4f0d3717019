-- Show a sign of life, and with it the step reached and new log lines.
-- ARGV: prefix, id, fence, lease_ms, step ('' = unchanged), log ('' = none), log_max_bytes, webhook_interval_ms,
--       log_from ('' = the log belongs to the step, and counts only if that is new)
-- Returns 1 = go on, 2 = go on to cancel, 0 = the job is no longer this worker's.
if not holds(ARGV[3]) then return 0 end
redis.call('ZADD', leases, now + tonumber(ARGV[4]), id)
local is_ahead = ARGV[5] ~= '' and tonumber(ARGV[5]) > tonumber(get('step') or 0)
local log, from = ARGV[6], tonumber(ARGV[9])
if from then
  -- What the attempt has logged before this text is known: a part that came already, its reply lost, is not taken twice.
  -- Less is on record than was sent before when a server that crashed lost its last second; the text itself is whole.
  log = string.sub(log, math.max(1, tonumber(get('attempt_logged') or 0) - from + 1))
elseif not is_ahead then
  log = ''
end
-- From now on this attempt is known to have been begun.
if is_ahead then
  redis.call('HSET', job, 'held', ARGV[3], 'step', ARGV[5])
else
  redis.call('HSET', job, 'held', ARGV[3])
end
if log ~= '' then
  redis.call('HSET', job, 'logs', string.sub((get('logs') or '') .. log, -tonumber(ARGV[7])))
  redis.call('HINCRBY', job, 'logged_bytes', #log)
  redis.call('HSET', job, 'attempt_logged', (from or tonumber(get('attempt_logged') or 0)) + #ARGV[6])
  if now - tonumber(get('logs_event_ms') or 0) >= tonumber(ARGV[8]) then
    redis.call('HSET', job, 'logs_event_ms', now)
    emit('logs')
  end
end
if is_ahead or log ~= '' then notify() end
return get('cancel') and 2 or 1
