-- End a running job: the one point at which an outcome becomes true.
-- ARGV: prefix, id, fence, status, result ('' = none), error ('' = none), retention_ms
-- Returns 1 = done, 2 = it was done by this very fence before (the reply was lost), 0 = refused: another fence holds or
-- ended the job.
if not holds(ARGV[3]) then
  if get('ended_by') == ARGV[3] then return 2 end
  return 0
end
redis.call('HSET', job, 'ended_by', ARGV[3])
if ARGV[5] ~= '' then
  redis.call('HSET', job, 'result', ARGV[5])
  emit('output')
end
if ARGV[6] ~= '' then redis.call('HSET', job, 'error', ARGV[6]) end
drop_lease()
complete(ARGV[4], tonumber(ARGV[7]))
return 1
