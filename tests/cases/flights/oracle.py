#!/usr/bin/env python3
"""What pipelines/flights must load, counted without Weir, SQL or JSON Schema: plain Python, standard library only.

    oracle.py by_carrier  prints carrier,flights of the table flights.delays  (expected_by_carrier.csv)
    oracle.py counts      prints what,value for every step and both tables    (expected_counts.csv)

The rules below are the contracts of schemas/ and the SQL of the pipeline written a second time, by hand.
"""

import csv
import gzip
import re
import sys
from collections import Counter
from datetime import date
from pathlib import Path

DATA = Path(__file__).resolve().parents[3] / "pipelines" / "flights" / "data"
NEW_YORK = {"EWR", "JFK", "LGA"}


def rows(name):
    path = DATA / name
    opened = gzip.open(path, "rt", newline="") if name.endswith(".gz") else open(path, newline="")
    with opened as lines:
        for row in csv.DictReader(lines):
            yield {key: None if value == "NA" else value for key, value in row.items()}


def whole(text, low, high):
    """True when the text is a whole number between the two."""
    return text is not None and re.fullmatch(r"-?\d+", text) is not None and low <= int(text) <= high


def real(text, low, high):
    return text is not None and low <= float(text) <= high


def missing_or(text, holds):
    return text is None or holds


def instant(text):
    return text is not None and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text) is not None


def code(text, pattern):
    return text is not None and re.fullmatch(pattern, text) is not None


def a_day(row):
    return whole(row["year"], 1987, 2100) and whole(row["month"], 1, 12) and whole(row["day"], 1, 31)


def valid_flight(row):
    left, landed = row["dep_time"], row["arr_time"]
    return (
        a_day(row)
        and whole(row["sched_dep_time"], 0, 2359)
        and whole(row["sched_arr_time"], 0, 2359)
        and missing_or(left, whole(left, 0, 2359))
        and missing_or(landed, whole(landed, 0, 2359))
        and missing_or(row["dep_delay"], whole(row["dep_delay"], -30, 2880))
        and missing_or(row["arr_delay"], whole(row["arr_delay"], -120, 2880))
        and missing_or(row["air_time"], whole(row["air_time"], 1, 1440))
        and code(row["carrier"], r"[0-9A-Z]{2}")
        and whole(row["flight"], 1, 9999)
        and missing_or(row["tailnum"], code(row["tailnum"], r"N[0-9A-Z]{1,5}"))
        and row["origin"] in NEW_YORK
        and code(row["dest"], r"[A-Z]{3}")
        and whole(row["distance"], 50, 6000)
        and whole(row["hour"], 0, 23)
        and whole(row["minute"], 0, 59)
        and instant(row["time_hour"])
        and (left is None or (row["dep_delay"] is not None and row["tailnum"] is not None))
        and (landed is None or (left is not None and row["arr_delay"] is not None and row["air_time"] is not None))
        and (left is not None or all(row[name] is None for name in ("dep_delay", "arr_time", "arr_delay", "air_time")))
    )


def valid_plane(row):
    registration = r"N[1-9](\d{0,4}|\d{0,3}[A-HJ-NP-Z]|\d{0,2}[A-HJ-NP-Z]{2})"
    return (
        code(row["tailnum"], registration)
        and missing_or(row["year"], whole(row["year"], 1950, 2100))
        and row["type"] in {"Fixed wing multi engine", "Fixed wing single engine", "Rotorcraft"}
        and bool(row["manufacturer"])
        and bool(row["model"])
        and whole(row["engines"], 2 if row["type"] == "Fixed wing multi engine" else 1, 8)
        and whole(row["seats"], 6, 853)
        and missing_or(row["speed"], whole(row["speed"], 60, 1500))
        and row["engine"] in {"4 Cycle", "Reciprocating", "Turbo-fan", "Turbo-jet", "Turbo-prop", "Turbo-shaft"}
    )


def valid_airport(row):
    east = row["lon"] is not None and float(row["lon"]) > 0
    return (
        code(row["faa"], r"[0-9A-Z]{3}")
        and bool(row["name"])
        and real(row["lat"], 18.9, 71.4)
        and real(row["lon"], 170 if east else -180, 180)
        and whole(row["alt"], -300, 15000)
        and whole(row["tz"], -11, -9 if east else -4)
        and row["dst"] in {"A", "N", "U"}
        and code(row["tzone"], r"(America|Pacific)/[A-Za-z_/]+")
    )


def valid_airline(row):
    return code(row["carrier"], r"[0-9A-Z]{2}") and bool(row["name"])


def valid_weather(row):
    return (
        row["origin"] in NEW_YORK
        and a_day(row)
        and whole(row["hour"], 0, 23)
        and real(row["temp"], -60, 130)
        and real(row["dewp"], -80, 100)
        and real(row["humid"], 0, 100)
        and missing_or(row["wind_dir"], whole(row["wind_dir"], 0, 360) and int(row["wind_dir"]) % 10 == 0)
        and real(row["wind_speed"], 0, 253)
        and missing_or(row["wind_gust"], row["wind_gust"] is None or real(row["wind_gust"], 0, 253))
        and real(row["precip"], 0, 15)
        and missing_or(row["pressure"], row["pressure"] is None or real(row["pressure"], 850, 1100))
        and real(row["visib"], 0, 10)
        and instant(row["time_hour"])
    )


def checked(counts, step, name, valid):
    """The valid rows of a file; how many there were and how many were not is noted."""
    kept = []
    for row in rows(name):
        counts[f"{step} read"] += 1
        if valid(row):
            kept.append(row)
        else:
            counts[f"{step} quarantined"] += 1
    counts[f"{step} quarantined"] += 0
    return kept


def by_key(step, kept, *names):
    """Rows by key. A key that occurs twice would make two flights of one, so it must not."""
    table = {tuple(row[name] for name in names): row for row in kept}
    assert len(table) == len(kept), f"{step} has a key twice"
    return table


def load():
    counts = Counter()
    airlines = by_key("airlines", checked(counts, "airlines", "airlines.csv", valid_airline), "carrier")
    airports = by_key("airports", checked(counts, "airports", "airports.csv", valid_airport), "faa")
    planes = by_key("planes", checked(counts, "planes", "planes.csv", valid_plane), "tailnum")
    weather = by_key("weather", checked(counts, "weather", "weather.csv", valid_weather), "origin", "time_hour")
    latest = {}
    for row in checked(counts, "flights", "flights.csv.gz", valid_flight):
        if row["dep_time"] is None:
            counts["flown filtered"] += 1
            continue
        key = (date(int(row["year"]), int(row["month"]), int(row["day"])), row["carrier"], row["flight"], row["origin"])
        before = latest.get(key)
        if before is not None:
            counts["delays deduplicated"] += 1
            if before["time_hour"] > row["time_hour"]:
                continue
        latest[key] = row
    counts["delays deduplicated"] += 0
    per_carrier, days = Counter(), set()
    for (day, carrier, _, _), row in latest.items():
        per_carrier[carrier] += 1
        days.add((day, carrier))
        counts["flights.delays rows"] += 1
        counts["flights.delays sum(dep_delay)"] += int(row["dep_delay"])
        counts["flights.delays sum(arr_delay)"] += int(row["arr_delay"] or 0)
        counts["flights.delays count(arr_delay)"] += row["arr_delay"] is not None
        counts["flights.delays sum(distance)"] += int(row["distance"])
        counts["flights.delays count(airline)"] += (row["carrier"],) in airlines
        counts["flights.delays count(dest_name)"] += (row["dest"],) in airports
        counts["flights.delays count(manufacturer)"] += (row["tailnum"],) in planes
        counts["flights.delays count(temp)"] += (row["origin"], row["time_hour"]) in weather
    counts["flights.daily rows"] = len(days)
    return per_carrier, counts


def main():
    per_carrier, counts = load()
    match sys.argv[1:]:
        case ["by_carrier"] | []:
            print("carrier,flights")
            for carrier, flights in sorted(per_carrier.items()):
                print(f"{carrier},{flights}")
        case ["counts"]:
            print("what,value")
            for what, value in sorted(counts.items()):
                print(f"{what},{value}")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
