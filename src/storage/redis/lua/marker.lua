
-- A record begins with 32 bytes, of which the number of the newest purge when it was asked for and the time of its arrival are at fixed places. The
-- marker of a resource with variants begins in the same way with the newest of theirs, and with where in it the record of its only variant begins, or zero where
-- there are several, each in a place of its own; behind that are its generation, the nominated fields, and the digests of the variants, newest first.
local HEADER, DIGEST = 32, 22

-- When a response began, as four numbers that count in this order; nothing where nothing is stored, or no record, or one that says of itself that it is from
-- the future, which nothing could ever replace.
local function order_of(header)
  if #header < HEADER or string.sub(header, 1, 3) ~= 'LRD' then return nil end
  local order = { struct.unpack('>I4I4I4I4', header, 9) }
  local soon = redis.call('TIME')[1] + 5
  return order[3] * 4294967.296 + order[4] / 1000 <= soon and order or nil
end

-- By so many milliseconds two instances may disagree about one moment.
local UNSURE = 10

local function is_later(one, other)
  if not one then return false end
  for i = 1, 2 do
    if one[i] ~= other[i] then return one[i] > other[i] end
  end
  return (one[3] - other[3]) * 4294967296 + one[4] - other[4] > UNSURE
end

local function read_marker(text)
  if string.sub(text, 1, 4) ~= 'LRDM' or #text < HEADER + DIGEST + 2 then return nil end
  local generation = string.sub(text, HEADER + 1, HEADER + DIGEST)
  local length = struct.unpack('>I2', text, HEADER + DIGEST + 1)
  local at = HEADER + DIGEST + 3
  local marker = { order = order_of(text), generation = generation, fields = string.sub(text, at, at + length - 1), digests = {} }
  for i = at + length, #text - DIGEST + 1, DIGEST do
    table.insert(marker.digests, string.sub(text, i, i + DIGEST - 1))
  end
  return marker
end

-- The beginning of what is stored somewhere, or of what is in it from a byte on.
local function header_of(key, from) return redis.call('GETRANGE', key, from or 0, (from or 0) + HEADER - 1) end

local function place_of(key, marker, digest) return key .. ':' .. marker.generation .. ':' .. digest end

local function unlink_variants(key, marker)
  for _, digest in ipairs(marker.digests) do redis.call('UNLINK', place_of(key, marker, digest)) end
end

-- What is under a key: the order of the newest response there, and the marker if there is one.
local function look(key)
  local header = header_of(key)
  if string.sub(header, 1, 4) ~= 'LRDM' then return order_of(header), nil end
  local record = #header == HEADER and struct.unpack('>I4', header, 25) or 0
  -- To the end where there is no record in it.
  local marker = read_marker(redis.call('GETRANGE', key, 0, record - 1))
  if marker then marker.record = record end
  if record > 0 and marker and #marker.digests ~= 1 then marker = nil end
  return marker and marker.order, marker
end

