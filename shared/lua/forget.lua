-- Take a job off the list of those whose dead attempts may have left something. One that ended anew since is not due: it stays.
-- ARGV: prefix, id
local due_ms = tonumber(redis.call('ZSCORE', prefix .. 'leftovers', id) or '')
if due_ms and due_ms <= now then redis.call('ZREM', prefix .. 'leftovers', id) end
return 1
