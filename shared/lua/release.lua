-- Give a running job back without charging it: the worker drains or cannot go on for a reason that is not the job's.
-- ARGV: prefix, id, fence, retention_ms
-- Returns 'queued' or 'canceled', or '' when the job is no longer this worker's.
if not holds(ARGV[3]) then
  -- It was given back under this very fence: the reply was lost, and nobody may have been told.
  if get('status') == 'queued' and get('fence') == ARGV[3] then return 'queued' end
  return ''
end
drop_lease()
if get('cancel') then
  complete('canceled', tonumber(ARGV[4]))
  return 'canceled'
end
enter_lane('recovery')
notify()
return 'queued'
