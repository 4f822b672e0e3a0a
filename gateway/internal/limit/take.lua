-- Takes tokens from every bucket of KEYS, or from none where one that must
-- admit does not. One call is one atomic step.
--
-- Units: the clock is microseconds since 1970, Redis's own, so that the
-- gateways' clocks do not matter. A debt is nanoseconds until the bucket is
-- full. A key's TTL is milliseconds. All are whole numbers below 2^53, which
-- Lua's numbers hold exactly.
--
-- A bucket is "<debt>@<clock>": the debt that it had at that time. A bucket
-- without debt has no key.
--
-- ARGV, six for each key:
--   capacity  the largest debt
--   interval  the debt that one token adds
--   cost      tokens without which this bucket does not admit
--   want      tokens to take if they are there, at least cost
--   floor     a debt that the gateway knows this bucket still to have, so that
--             a Redis that lost its data does not start with full buckets
--   must      1, or 0 for a bucket that is only watched
--
-- Returns 1 if all that must admit did, else 0; then for each key its debt
-- now and the tokens taken.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local admitted = 1
local buckets = {}
for i, key in ipairs(KEYS) do
  local arg = {}
  for j = 1, 6 do arg[j] = tonumber(ARGV[6 * (i - 1) + j]) end
  local capacity, interval, cost, want, floor, must = unpack(arg)

  local kept = 0
  local debt, at = string.match(redis.call('GET', key) or '', '^(%d+)@(%d+)$')
  if debt then
    kept = math.max(0, debt - math.max(0, now - at) * 1000)
  end
  local owed = math.min(capacity, math.max(kept, floor))
  local taken = math.min(want, math.floor((capacity - owed) / interval))
  if taken < cost then
    taken = 0
    if must == 1 then admitted = 0 end
  end
  buckets[i] = {kept = kept, owed = owed, taken = taken, interval = interval}
end

local answer = {admitted}
for i, key in ipairs(KEYS) do
  local b = buckets[i]
  if admitted == 0 then b.taken = 0 end
  b.owed = b.owed + b.taken * b.interval
  if b.owed > b.kept then
    redis.call('SET', key, string.format('%.0f@%.0f', b.owed, now), 'PX', math.ceil(b.owed / 1000000))
  end
  answer[2 * i] = b.owed
  answer[2 * i + 1] = b.taken
end
return answer
