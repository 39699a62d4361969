-- name: exact
-- param least: decimal(20, 2)
select cast($least as varchar) as least, 'a_b' like 'a/_%' escape '/' as holds
