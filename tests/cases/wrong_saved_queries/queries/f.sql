-- name: b
-- name: twice
-- param day: date
select 1 as one
