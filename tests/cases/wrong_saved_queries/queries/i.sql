-- name: i
-- param day: date
select day - $day as d, day + $day as e from flights.dellays
