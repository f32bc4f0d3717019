-- Send a delivery again from its first try on: the same body under the same id. One that is being tried now is left to that.
-- ARGV: prefix, then the deliveries
-- Returns how many of them will be tried.
local count = 0
for i = 2, #ARGV do
  local id = ARGV[i]
  redis.call('ZREM', dead, id)
  if redis.call('HEXISTS', key_of(id), 'url') == 1 then
    local receiver = receiver_of(id)
    if not redis.call('ZSCORE', busy_of(receiver), id) then
      redis.call('HSET', key_of(id), 'state', 'pending', 'attempts', 0)
      redis.call('PERSIST', key_of(id))
      redis.call('ZREM', line_of(receiver), id)
      redis.call('ZADD', due, now, id)
    end
    count = count + 1
  end
end
return count
