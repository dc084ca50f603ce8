
-- KEYS: the key of the resource. Its variants go with it.
local _, marker = look(KEYS[1])
if marker then unlink_variants(KEYS[1], marker) end
return redis.call('UNLINK', KEYS[1])
