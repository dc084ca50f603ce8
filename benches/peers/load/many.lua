-- Keys at random, all as likely: `-- KEYS SEED`.
dofile(debug.getinfo(1).source:match("@(.*/)") .. "report.lua")

local requests, keys = {}, 0

function init(args)
  keys = tonumber(args[1])
  math.randomseed(tonumber(args[2]))
  for key = 0, keys - 1 do
    requests[key] = wrk.format("GET", "/item/" .. key)
  end
end

function request()
  return requests[math.random(0, keys - 1)]
end
