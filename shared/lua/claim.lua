-- Take a queued job.
-- ARGV: prefix, id, worker, delivery_token, lease_ms
-- Returns the record's fields, or {} when there is nothing for this delivery to do.
local status = get('status')
if status == 'running' and get('delivery_token') == ARGV[4] then return begun_before(tonumber(ARGV[5])) end
if status ~= 'queued' then return {} end
return begin(ARGV[3], ARGV[4], tonumber(ARGV[5]))
