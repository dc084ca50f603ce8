
-- KEYS: the key of the entry. ARGV: the new record, milliseconds to live, the record that is expected there ('' for nothing), and 1 if this was asked before without an
-- answer: then the new record may be there already.
--
-- Answers 1, or 0 and what is there instead.
local key, record, lifetime, expected, again = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]

-- The frame of a record: a header of 48 bytes, with the time of arrival at a fixed place, and a seal of 16.
local FRAME, SEAL = 64, 16

-- By so many milliseconds two instances may disagree about one moment.
local UNSURE = 10

local function time_of(one)
  local high, low = struct.unpack('>I4I4', one, 17)
  return high * 4294967296 + low
end

-- All but the time of arrival to the last bit, and the seal, which is over that as well.
local function is_same(one, other)
  return #one == #other and #one >= FRAME
    and string.sub(one, 1, 16) == string.sub(other, 1, 16)
    and string.sub(one, 29, -SEAL - 1) == string.sub(other, 29, -SEAL - 1)
    and math.abs(time_of(one) - time_of(other)) <= UNSURE
end

local there = redis.call('GET', key)
if again == '1' and there and is_same(there, record) then return { 1 } end
local is_expected
if there then is_expected = is_same(there, expected) else is_expected = expected == '' end
if not is_expected then return { 0, there } end
redis.call('SET', key, record, 'PX', lifetime)
return { 1 }
