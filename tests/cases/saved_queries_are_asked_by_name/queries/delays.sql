-- name: delays
-- description: delays of one carrier
-- param carrier: text                 the carrier's code
-- param since: date = '2013-01-01'
-- param least: bigint = null          minutes, at least
select carrier, day, minutes
from flights.delays
where carrier = $carrier and day >= $since and ($least is null or minutes >= $least)
