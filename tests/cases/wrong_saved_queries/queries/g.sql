-- name: b
-- param day: date   a day
select 1 as one
