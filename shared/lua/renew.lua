-- Show a sign of life, and with it the step reached and new log lines.
-- ARGV: prefix, id, fence, lease_ms, step ('' = unchanged), log ('' = none), log_max_bytes, webhook_interval_ms
-- Returns 1 = go on, 2 = go on to cancel, 0 = the job is no longer this worker's.
if not holds(ARGV[3]) then return 0 end
redis.call('ZADD', leases, now + tonumber(ARGV[4]), id)
if ARGV[5] ~= '' and tonumber(ARGV[5]) > tonumber(get('step') or 0) then
  redis.call('HSET', job, 'step', ARGV[5])
  if ARGV[6] ~= '' then
    local logs = (get('logs') or '') .. ARGV[6]
    redis.call('HSET', job, 'logs', string.sub(logs, -tonumber(ARGV[7])))
    redis.call('HINCRBY', job, 'logged_bytes', #ARGV[6])
    if now - tonumber(get('logs_event_ms') or 0) >= tonumber(ARGV[8]) then
      redis.call('HSET', job, 'logs_event_ms', now)
      emit('logs')
    end
  end
  notify()
end
return get('cancel') and 2 or 1
