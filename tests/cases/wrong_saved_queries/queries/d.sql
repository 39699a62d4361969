-- name: d
select * from query.c()
