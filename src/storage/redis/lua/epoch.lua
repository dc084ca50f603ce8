#!lua flags=allow-oom
-- KEYS: the hash of purges, the stream. ARGV: epoch and counter that the caller knows, milliseconds that a record lives at most.
--
-- The head tells which server it belongs to. Where it is missing, or belongs to another server or run, or is behind what the caller knows, nobody can
-- say which purges were lost: a new epoch begins, and everything older counts as purged.
local purges, stream = KEYS[1], KEYS[2]
local known = { epoch = tonumber(ARGV[1]), counter = tonumber(ARGV[2]) }
local longest = tonumber(ARGV[3])
local LAST = 4294967295

local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local time = redis.call('TIME')
local seconds, microseconds = tonumber(time[1]), tonumber(time[2])
local now = seconds * 1000 + math.floor(microseconds / 1000)

local function write_head(head)
  local text = string.format('1 %.0f %.0f %s %.0f %.0f', head.epoch, head.counter, head.run, head.floor, head.longest)
  redis.call('HSET', purges, 'head', text)
end

local function read_head()
  local text = redis.call('HGET', purges, 'head') or ''
  local epoch, counter, its_run, floor, its_longest = string.match(text, '^1 (%d+) (%d+) (%x+) (%d+) (%d+)$')
  if not epoch then return nil end
  return {
    epoch = tonumber(epoch), counter = tonumber(counter), run = its_run,
    floor = tonumber(floor), longest = tonumber(its_longest),
  }
end

local function new_epoch(old)
  local epoch = math.max(seconds, known.epoch + 1, old and old.epoch + 1 or 0)
  if epoch > LAST then error({ err = 'ERR the epochs of the purge log are used up: delete ' .. purges }) end
  redis.call('UNLINK', purges, stream)
  local head = { epoch = epoch, counter = 0, run = run, floor = 0, longest = longest }
  write_head(head)
  return head
end

local function head_of_now()
  local head = read_head()
  local is_ahead = head and (head.epoch > known.epoch or head.epoch == known.epoch and head.counter >= known.counter)
  if not (is_ahead and head.run == run and head.counter < LAST) then return new_epoch(head) end
  if head.longest < longest then
    head.longest = longest
    write_head(head)
  end
  return head
end

local function told(head, more)
  return { head.epoch, head.counter, head.floor, seconds, microseconds, run, more }
end
