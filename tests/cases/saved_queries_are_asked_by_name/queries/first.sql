-- name: first_version
select count(*) as n from flights.delays version as of 0
