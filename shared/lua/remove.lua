-- Forget what a finished job carried: its input, logs and pictures. The row itself stays readable.
-- ARGV: prefix, id, spec and result without what is removed ('' = no result)
-- Returns 1 when the data is gone, 0 when the job has not ended.
if not get('completed_ms') then return 0 end
redis.call('HSET', job, 'spec', ARGV[3], 'data_removed', 1)
redis.call('HDEL', job, 'logs')
if ARGV[4] ~= '' then redis.call('HSET', job, 'result', ARGV[4]) end
redis.call('ZREM', prefix .. 'expiring', id)
return 1
