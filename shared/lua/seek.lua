-- Find where a moment lies in a tenant's list of jobs, or in everybody's, by halving: they are numbered in the order of their creation.
-- ARGV: prefix, '', tenant ('' = everybody), created_ms
-- Returns the number of the first job created at that moment or later; one past the last job when there is none.
local list, wanted = prefix .. 'jobs' .. (ARGV[3] ~= '' and ':' .. ARGV[3] or ''), tonumber(ARGV[4])
local low, high = 0, redis.call('ZCARD', list)
while low < high do
  local middle = math.floor((low + high) / 2)
  -- An id whose record is lost or broken tells nothing: the next one that has a moment does.
  local probe, created_ms = middle, nil
  while probe < high and not created_ms do
    local found = redis.call('ZRANGE', list, probe, probe)[1]
    created_ms = tonumber(redis.call('HGET', prefix .. 'job:' .. found, 'created_ms') or '')
    probe = probe + 1
  end
  if created_ms and created_ms < wanted then
    low = probe
  else
    high = middle
  end
end
local first = redis.call('ZRANGE', list, low, low, 'WITHSCORES')
if first[2] then return tonumber(first[2]) end
return tonumber(redis.call('GET', prefix .. 'seq') or 0) + 1
