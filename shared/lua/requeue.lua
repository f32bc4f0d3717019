-- Bring a job back that failed because its workers died over it: it waits again, with all its attempts before it.
-- ARGV: prefix, id
-- Returns the status the job has now, 'removed' (its data is gone, or its owner wants it gone), 'kept' (it is not such a
-- job) or '' (no such job).
local status = get('status')
if not status then return '' end
-- The reply to the first call got lost.
if get('requeued_ms') and (status == 'queued' or status == 'running') then return status end
if status ~= 'failed' or not redis.call('ZSCORE', prefix .. 'dead', id) then return 'kept' end
if get('data_removed') or get('unwanted') then return 'removed' end
redis.call('ZREM', prefix .. 'dead', id)
redis.call('ZREM', prefix .. 'expiring', id)
redis.call('HDEL', job, 'unheld', 'error', 'completed_ms', 'expires_ms', 'deadline_ms')
redis.call('HSET', job, 'crashes', 0, 'requeued_ms', now)
enter_lane('recovery')
notify()
return 'queued'
