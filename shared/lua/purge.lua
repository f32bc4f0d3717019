-- Take the last of a job away: its row, its place in its tenant's list, its file token, and what is left of its webhooks.
-- ARGV: prefix, id
-- Returns 1, or 0 when its data was not removed before.
redis.call('ZREM', rows, id)
if not get('data_removed') then return 0 end
for n = 1, tonumber(get('deliveries') or 0) do
  local delivery = id .. '.' .. n
  redis.call('DEL', prefix .. 'delivery:' .. delivery)
  redis.call('ZREM', prefix .. 'deliveries:due', delivery)
  redis.call('ZREM', prefix .. 'deliveries:dead', delivery)
end
redis.call('ZREM', prefix .. 'jobs:' .. get('tenant'), id)
redis.call('ZREM', prefix .. 'jobs', id)
redis.call('ZREM', prefix .. 'dead', id)
redis.call('DEL', prefix .. 'file:' .. get('file_token'), job)
return 1
