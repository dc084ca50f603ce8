
-- KEYS: the key of the resource. ARGV: the record, milliseconds to live, the nominated fields, the digest of the variant, a new generation in case it is
-- needed, how many variants there may be.
--
-- Responses are stored when their content ends, which may be in another order than they began: what began later stays. A response that varies by other fields
-- takes the place of all.
local key, record, lifetime, fields, digest = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local generation, most = ARGV[5], tonumber(ARGV[6])
local new = { struct.unpack('>I4I4I4I4', record, 9) }

local function set(place) redis.call('SET', place, record, 'PX', lifetime) end

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

local function set_marker(marker)
  local order = is_later(marker.order, new) and marker.order or new
  local header = 'LRDM\1\0\0\0' .. struct.pack('>I4I4I4I4', unpack(order)) .. string.rep('\0', 8)
  local text = header .. marker.generation .. struct.pack('>I2', #fields) .. fields .. table.concat(marker.digests)
  redis.call('SET', key, text, 'PX', math.max(lifetime, redis.call('PTTL', key)))
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
  marker = { generation = generation, digests = {} }
end
local place = place_of(key, marker, digest)
if is_later(order_of(redis.call('GETRANGE', place, 0, HEADER - 1)), new) then return 0 end
set(place)
marker.digests = newest_first(marker)
set_marker(marker)
return 1
