-- The same request again and again: that of the command line.
dofile(debug.getinfo(1).source:match("@(.*/)") .. "report.lua")
