-- name: h
delete from flights.delays
