-- Find waiting jobs whose Celery message must have been lost, and mark them as published again.
-- ARGV: prefix, '' , model, grace_ms, limit, then the Redis lists that hold the model's Celery messages
-- A job is lost when grace has passed since its last publish and either no message of the model is left at all, or a job
-- that came after it in its lane was claimed: lanes are first in, first out, so it was passed over. The recovery lane is
-- served before every other, so there any later claim tells. The grace doubles with each publish, up to a minute.
-- Returns the ids.
local model, grace_ms, limit = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local messages = 0
for i = 6, #ARGV do messages = messages + redis.call('LLEN', ARGV[i]) end
local last = prefix .. 'last:' .. model
local claimed_ms = tonumber(redis.call('HGET', last, 'claimed_ms') or 0)
local found = {}
for _, lane in ipairs(LANES) do
  local passed = tonumber(redis.call('HGET', last, lane) or 0)
  local waiting = redis.call('ZRANGE', queued_key(model, lane), 0, limit - 1, 'WITHSCORES')
  for i = 1, #waiting, 2 do
    local key = prefix .. 'job:' .. waiting[i]
    local record = redis.call('HMGET', key, 'published_ms', 'republished')
    local published_ms, times = tonumber(record[1] or 0), tonumber(record[2] or 0)
    if not record[1] then redis.call('ZREM', queued_key(model, lane), waiting[i]) end
    local wait_ms = math.min(grace_ms * 2 ^ times, 60000)
    local skipped = passed > tonumber(waiting[i + 1])
    if lane == 'recovery' then skipped = claimed_ms > published_ms + grace_ms end
    -- Published after now: the clock was set back since.
    local waited = now - published_ms >= wait_ms or now < published_ms
    if record[1] and waited and (messages == 0 or skipped) then
      redis.call('HSET', key, 'published_ms', now, 'republished', times + 1)
      found[#found + 1] = waiting[i]
    end
  end
end
return found
