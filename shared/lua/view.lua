-- Read a job and how it stands.
-- ARGV: prefix, id
-- Returns {record, position, clock_ms, traffic}: the record is {} when there is no such job, the position -1 when it is not
-- waiting; traffic is described in the prelude.
return { view(id) }
