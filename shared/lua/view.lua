-- Read a job and its place in line.
-- ARGV: prefix, id
-- Returns {record, position}: the record is {} when there is no such job, the position -1 when it is not waiting.
local record, position = view(id)
return { record, position }
