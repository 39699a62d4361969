"""The ticks of cron expressions on the clocks of zones, by the library `cronsim`: the referee of Weir's own.

Reads {"jobs": [{"zone", "cron", "spans": [[FROM, TO], ...]}, ...]} from standard input, times in seconds since 1970, and writes for each job a
line of its ticks after FROM and not after TO, one list a span. Zones are those of the package `tzdata`, whatever the system has.
"""

import json
import os
import sys

os.environ["PYTHONTZPATH"] = ""

import datetime
import zoneinfo

from cronsim import CronSim


def ticks(zone, cron, start, end):
    at = datetime.datetime.fromtimestamp(start, zone)
    found, before = [], None
    for tick in CronSim(cron, at):
        second = int(tick.timestamp())
        if second > end:
            break
        # An hour that is shown twice is met twice.
        if second > start and second != before:
            found.append(second)
        before = second
    return found


def main():
    zones = {}
    for job in json.load(sys.stdin)["jobs"]:
        zone = zones.setdefault(job["zone"], zoneinfo.ZoneInfo(job["zone"]))
        print(json.dumps([ticks(zone, job["cron"], start, end) for start, end in job["spans"]]))


main()
