#!lua
-- Refused by the server where memory is full and nothing may be evicted.
