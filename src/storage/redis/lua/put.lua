
-- KEYS: the key of the resource. ARGV: the record, milliseconds to live, the nominated fields, the digest of the variant, a new generation in case it is
-- needed, how many variants there may be.
--
-- Responses are stored when their content ends, which may be in another order than they began: what began later stays. A response that varies by other fields
-- takes the place of all. An only variant lies in its marker, where one question finds it, whoever asks.
local key, record, lifetime, fields, digest = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local generation, most = ARGV[5], tonumber(ARGV[6])
local new = { struct.unpack('>I4I4I4I4', record, 9) }

local function set(place) redis.call('SET', place, record, 'PX', lifetime) end

-- What is larger isn't moved again for the sake of a second variant.
local MOST_WITHIN = 262144

-- The variants with this one as the newest; those that are too many go.
local function newest_first(marker)
  local kept = { digest }
  for _, other in ipairs(marker.digests) do
    if other ~= digest then
      if #kept < most then
        table.insert(kept, other)
      else
        redis.call('UNLINK', place_of(key, marker, other))
      end
    end
  end
  return kept
end

-- The only variant so far gets a place of its own, for as long as it had its own.
local function move_out(marker)
  local other = redis.call('GETRANGE', key, marker.record, -1)
  redis.call('SET', place_of(key, marker, marker.digests[1]), other, 'PX', math.max(1, redis.call('PTTL', key)))
end

local function marker_text(marker, is_within)
  local order = is_later(marker.order, new) and marker.order or new
  local rest = marker.generation .. struct.pack('>I2', #fields) .. fields .. table.concat(marker.digests)
  local at = is_within and HEADER + #rest or 0
  return 'LRDM\1\0\0\0' .. struct.pack('>I4I4I4I4', unpack(order)) .. struct.pack('>I4', at) .. string.rep('\0', 4) .. rest
end

local there, marker = look(key)
local is_alike = marker and fields ~= '' and marker.fields == fields
if not is_alike then
  if is_later(there, new) then return 0 end
  if marker then unlink_variants(key, marker) end
  if fields == '' then
    set(key)
    return 1
  end
  if there then redis.call('UNLINK', key) end
  marker = { generation = generation, digests = {}, record = 0 }
end
local place = place_of(key, marker, digest)
local is_there = marker.record > 0 and marker.digests[1] == digest
if is_later(order_of(is_there and header_of(key, marker.record) or header_of(place)), new) then return 0 end
if marker.record > 0 and not is_there and most > 1 then move_out(marker) end
marker.digests = newest_first(marker)
if #marker.digests == 1 and #record <= MOST_WITHIN then
  redis.call('UNLINK', place)
  redis.call('SET', key, marker_text(marker, true) .. record, 'PX', lifetime)
else
  set(place)
  redis.call('SET', key, marker_text(marker, false), 'PX', math.max(lifetime, redis.call('PTTL', key)))
end
return 1
