-- Give up a delivery that cannot be rendered.
-- ARGV: prefix, delivery, note
-- Returns 1, or 0 when there is no such delivery or it is settled.
local delivery = ARGV[2]
redis.call('ZREM', due, delivery)
redis.call('ZREM', busy_of(receiver_of(delivery)), delivery)
if redis.call('HGET', key_of(delivery), 'state') ~= 'pending' then return 0 end
note_try(delivery, ARGV[3])
bury(delivery)
return 1
