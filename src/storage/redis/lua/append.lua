
-- ARGV goes on: the message; 1 if it purges everything hard; how many news are told at most; how many entries and fields are kept; and for each single thing
-- its name, which begins with 'h' or 's' for hard and soft, and its message.
local message, is_everything, most_news = ARGV[4], ARGV[5] == '1', tonumber(ARGV[6])
local most_entries, most_fields = ARGV[7], tonumber(ARGV[8])

-- Whether a soft purge makes stale as of an earlier time, which both messages have at the same place.
local function is_earlier(one, other)
  if #one < 11 then return false end
  local high, low = struct.unpack('>I4I4', one, 4)
  local other_high, other_low = struct.unpack('>I4I4', other, 4)
  return high < other_high or high == other_high and low < other_low
end

local function add_to_stream(head)
  return redis.pcall('XADD', stream, 'MAXLEN', '~', most_entries, id_of(number_of(head)), 'm', message)
end

-- A hard purge stands for all before it of the same thing. Of soft ones the newest number and the earliest time count, each of which touches more.
local function remember(head, thing, part)
  if string.sub(thing, 1, 1) == 'h' then
    redis.call('HDEL', purges, 's' .. string.sub(thing, 2))
  else
    local old = redis.call('HGET', purges, thing)
    if old and is_earlier(string.sub(old, 17), part) then part = string.sub(old, 17) end
  end
  local number = number_of(head)
  local when = struct.pack('>I4I4I4I4', number.high, number.low, math.floor(now / HALF), now % HALF)
  redis.call('HSET', purges, thing, when .. part)
end

local function news_since(head)
  local known_count = count_of(head, known)
  local news = head.counter - known_count
  if known_count < 0 or news > most_news then return false end
  local entries = redis.call('XRANGE', stream, '(' .. id_of(known), '+')
  return #entries == news and entries
end

local head = head_of_now()
head.counter = head.counter + 1
local added = add_to_stream(head)
if type(added) == 'table' and added.err then
  -- Somebody wrote into the stream: its order is nobody's.
  head = new_epoch(head)
  head.counter = 1
  added = add_to_stream(head)
  if type(added) == 'table' and added.err then return added end
end
if is_everything or redis.call('HLEN', purges) > most_fields then
  redis.call('UNLINK', purges)
  head.floor = head.counter
end
if not is_everything then
  for i = 9, #ARGV, 2 do remember(head, ARGV[i], ARGV[i + 1]) end
end
write_head(head)
return told(head, news_since(head))
