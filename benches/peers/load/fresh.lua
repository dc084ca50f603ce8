-- One key after another, and from the beginning once all were asked for: `-- FIRST COUNT`.
dofile(debug.getinfo(1).source:match("@(.*/)") .. "report.lua")

local head, tail, first, count, asked = "", "", 0, 1, 0

function init(args)
  first, count = tonumber(args[1]), tonumber(args[2])
  head, tail = wrk.format("GET", "/item/KEY"):match("^(.*)KEY(.*)$")
end

function request()
  local key = first + asked
  asked = (asked + 1) % count
  return head .. string.format("%d", key) .. tail
end
