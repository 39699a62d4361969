-- name: b
-- param carrier: text
select carrier, minuts from flights.delays where carrier = $carrier
