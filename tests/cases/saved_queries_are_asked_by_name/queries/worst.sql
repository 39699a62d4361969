-- name: worst
-- description: the longest delay of a carrier
-- A saved query may ask another one.
select max(minutes) as minutes from query.delays('UA')
