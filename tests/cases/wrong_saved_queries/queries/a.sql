-- name: a
-- descripton: what
-- param carrier: txt
-- param since: date = yesterday
select * from flights.delays where carrier = $carrier and day >= $sinc
