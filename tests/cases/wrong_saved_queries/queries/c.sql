-- name: c
select * from query.d()
