-- Keys at random, the n-th as likely as 1/n (Zipf's law), by rejection-inversion (Hörmann and Derflinger 1996): `-- KEYS SEED`. Likely keys
-- aren't neighbours: ranks are spread over the keys by a multiplication, which src/bin/peers/load.rs has as well.
dofile(debug.getinfo(1).source:match("@(.*/)") .. "report.lua")

local keys, head, tail, low, high, cut = 0, "", "", 0, 0, 0
local exp, log, floor, random = math.exp, math.log, math.floor, math.random

function init(args)
  keys = tonumber(args[1])
  math.randomseed(tonumber(args[2]))
  head, tail = wrk.format("GET", "/item/KEY"):match("^(.*)KEY(.*)$")
  -- The integral of 1/x is log x.
  low, high = log(1.5) - 1, log(keys + 0.5)
  cut = 2 - exp(log(2.5) - 0.5)
end

function request()
  while true do
    local u = high + random() * (low - high)
    local x = exp(u)
    local rank = floor(x + 0.5)
    if rank < 1 then rank = 1 elseif rank > keys then rank = keys end
    if rank - x <= cut or u >= log(rank + 0.5) - 1 / rank then
      return head .. string.format("%d", (rank * 7919) % keys) .. tail
    end
  end
end
