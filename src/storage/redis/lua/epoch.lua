#!lua flags=allow-oom
-- KEYS: the hash of purges, the stream. ARGV: the number of the newest purge that the caller knows, in two halves of 32 bits; milliseconds that a record lives at most.
--
-- The head tells which server it belongs to. Where it is missing, or belongs to another server or run, or is behind what the caller knows, nobody can
-- say which purges were lost: a new epoch begins, and everything older counts as purged.
--
-- An epoch begins with a number that is the time, so that it is larger than any of an earlier epoch, also than those that this caller has never heard of: between two
-- callers of different knowledge everything may have been lost twice in the same second. A purge counts one, a microsecond 4096.
--
-- Numbers have 64 bits, of which a number here holds 53. So they are in two halves, and within an epoch they are counted from its beginning.
local purges, stream = KEYS[1], KEYS[2]
local known = { high = tonumber(ARGV[1]), low = tonumber(ARGV[2]) }
local longest = tonumber(ARGV[3])
local HALF, A_MICROSECOND = 4294967296, 4096

-- Where the clock doesn't say it, since it was set back or another server's is behind: as many purges may have been made that the caller hasn't heard of, and two callers who know the
-- same begin at different places.
local APART, PLACES = 1048576, 4096

local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local time = redis.call('TIME')
local seconds, microseconds = tonumber(time[1]), tonumber(time[2])
local now = seconds * 1000 + math.floor(microseconds / 1000)

local function plus(number, n)
  local low = number.low + n
  return { high = number.high + math.floor(low / HALF), low = low % HALF }
end

local function later(one, other)
  if one.high ~= other.high then return one.high > other.high and one or other end
  return one.low > other.low and one or other
end

-- How far behind the beginning of the epoch a number is; below zero if it is of an earlier one.
local function count_of(head, number) return (number.high - head.start.high) * HALF + number.low - head.start.low end

local function number_of(head) return plus(head.start, head.counter) end

local function id_of(number) return string.format('%.0f-%.0f', number.high, number.low) end

local function write_head(head)
  local text = string.format(
    '2 %.0f %.0f %.0f %s %.0f %.0f', head.start.high, head.start.low, head.counter, head.run, head.floor, head.longest
  )
  redis.call('HSET', purges, 'head', text)
end

local function read_head()
  local text = redis.call('HGET', purges, 'head') or ''
  local high, low, counter, its_run, floor, its_longest =
    string.match(text, '^2 (%d+) (%d+) (%d+) (%x+) (%d+) (%d+)$')
  if not high then return nil end
  return {
    start = { high = tonumber(high), low = tonumber(low) }, counter = tonumber(counter), run = its_run,
    floor = tonumber(floor), longest = tonumber(its_longest),
  }
end

local function new_epoch(old)
  local start = { high = seconds, low = microseconds * A_MICROSECOND }
  local newest = old and later(known, number_of(old)) or known
  if later(start, newest) == newest then start = plus(newest, APART * (1 + microseconds % PLACES)) end
  if start.high >= HALF then error({ err = 'ERR the numbers of the purge log are used up: delete ' .. purges }) end
  redis.call('UNLINK', purges, stream)
  local head = { start = start, counter = 0, run = run, floor = 0, longest = longest }
  write_head(head)
  return head
end

local function head_of_now()
  local head = read_head()
  local is_ahead = head and head.counter >= count_of(head, known)
  if not (is_ahead and head.run == run) then return new_epoch(head) end
  if head.longest < longest then
    head.longest = longest
    write_head(head)
  end
  return head
end

local function told(head, more)
  return { head.start.high, head.start.low, head.counter, head.floor, seconds, microseconds, run, more }
end
