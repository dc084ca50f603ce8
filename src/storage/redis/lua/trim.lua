
-- ARGV goes on: where in the hash to go on, and about how many fields to look at. What was purged before the oldest record there can be is forgotten,
-- and the floor says so.
local cursor, count = ARGV[4], ARGV[5]

local head = head_of_now()
local page = redis.call('HSCAN', purges, cursor, 'COUNT', count)
local floor = head.floor
for i = 1, #page[2], 2 do
  local thing, value = page[2][i], page[2][i + 1]
  if thing ~= 'head' then
    -- What can't be read may have been anything.
    local counter, high, low = head.counter, 0, 0
    if #value >= 16 then
      local number = {}
      number.high, number.low, high, low = struct.unpack('>I4I4I4I4', value)
      counter = count_of(head, number)
    end
    if high * HALF + low + head.longest < now then
      redis.call('HDEL', purges, thing)
      floor = math.max(floor, math.min(counter, head.counter))
    end
  end
end
if floor > head.floor then
  head.floor = floor
  write_head(head)
end
return told(head, page[1])
