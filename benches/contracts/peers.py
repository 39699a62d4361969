"""Checks rows with another program's validator: `peers.py pandera|fastjsonschema flights|lineitem CONTRACT FOLDER ROUNDS`. FOLDER has
`rows.arrow` and `rows.ndjson`. Rows are read before the clock starts; prints JSON: rows, how many are refused, and the seconds of each round."""

import json
import sys
import time
from pathlib import Path


def timed(rounds, check):
    seconds, refused = [], 0
    for _ in range(rounds):
        started = time.monotonic()
        refused = check()
        seconds.append(time.monotonic() - started)
    return seconds, refused


def fastjsonschema(_, contract, folder, rounds):
    """One compiled function, called row by row. It raises at the first rule that a row breaks."""
    import fastjsonschema as it

    # It asserts formats as it stands.
    valid = it.compile(json.loads(Path(contract).read_text()))
    with open(folder / "rows.ndjson") as lines:
        rows = [json.loads(line) for line in lines]

    def check():
        refused = 0
        for row in rows:
            try:
                valid(row)
            except it.JsonSchemaValueException:
                refused += 1
        return refused

    return len(rows), *timed(rounds, check)


def pandera(what, _, folder, rounds):
    """The same rules as a pandera schema on a Polars frame. Lazy: every broken rule of every row is found, as a report needs it."""
    import pandera.polars as pa
    import polars as pl
    from pandera.errors import SchemaErrors

    schema = {"flights": flights, "lineitem": lineitem}[what](pa, pl)
    frame = pl.read_ipc(folder / "rows.arrow").rechunk()

    def check():
        try:
            schema.validate(frame, lazy=True)
        except SchemaErrors as errors:
            # A rule over several columns names no rows of its own: only that it failed is seen, so rows are told by their index.
            return errors.failure_cases["index"].drop_nulls().n_unique()
        return 0

    return len(frame), *timed(rounds, check)


def together(pa, rule):
    """A rule over several columns, true of the rows that keep it."""
    return pa.Check(lambda data: data.lazyframe.select(rule.fill_null(True)))


def lineitem(pa, pl):
    at_least = pa.Check.ge
    column = pa.Column
    columns = {name: column(pl.Int64, at_least(1)) for name in ["l_orderkey", "l_partkey", "l_suppkey"]}
    columns |= {
        "l_linenumber": column(pl.Int64, [at_least(1), pa.Check.le(7)]),
        "l_quantity": column(pl.Int64, [at_least(1), pa.Check.le(50)]),
        "l_extendedprice": column(pl.Float64, pa.Check.gt(0)),
        "l_discount": column(pl.Float64, [at_least(0), pa.Check.le(0.1)]),
        "l_tax": column(pl.Float64, [at_least(0), pa.Check.le(0.08)]),
        "l_returnflag": column(pl.String, pa.Check.isin(["A", "N", "R"])),
        "l_linestatus": column(pl.String, pa.Check.isin(["F", "O"])),
        "l_shipinstruct": column(pl.String, pa.Check.str_matches("^[A-Z]+( [A-Z]+)*$")),
        "l_shipmode": column(pl.String, pa.Check.isin(["AIR", "FOB", "MAIL", "RAIL", "REG AIR", "SHIP", "TRUCK"])),
        "l_comment": column(pl.String, pa.Check.str_length(1, 44)),
    }
    columns |= {name: column(pl.Date) for name in ["l_shipdate", "l_commitdate", "l_receiptdate"]}
    return pa.DataFrameSchema(columns, checks=together(pa, (pl.col("l_linestatus") != "O") | (pl.col("l_returnflag") == "N")))


def flights(pa, pl):
    def whole(least, most, nullable=False):
        return pa.Column(pl.Int64, pa.Check.in_range(least, most), nullable=nullable)

    def clock(nullable=False):
        return whole(0, 2359, nullable)

    has = {name: pl.col(name).is_not_null() for name in ["dep_time", "dep_delay", "tailnum", "arr_time", "arr_delay", "air_time"]}
    left = ~has["dep_time"] | (has["dep_delay"] & has["tailnum"])
    landed = ~has["arr_time"] | (has["dep_time"] & has["arr_delay"] & has["air_time"])
    stayed = has["dep_time"] | ~(has["dep_delay"] | has["arr_time"] | has["arr_delay"] | has["air_time"])
    return pa.DataFrameSchema(
        {
            "year": whole(1987, 2100), "month": whole(1, 12), "day": whole(1, 31),
            "dep_time": clock(True), "sched_dep_time": clock(), "dep_delay": whole(-30, 2880, True),
            "arr_time": clock(True), "sched_arr_time": clock(), "arr_delay": whole(-120, 2880, True),
            "carrier": pa.Column(pl.String, pa.Check.str_matches("^[0-9A-Z]{2}$")),
            "flight": whole(1, 9999),
            "tailnum": pa.Column(pl.String, pa.Check.str_matches("^N[0-9A-Z]{1,5}$"), nullable=True),
            "origin": pa.Column(pl.String, pa.Check.isin(["EWR", "JFK", "LGA"])),
            "dest": pa.Column(pl.String, pa.Check.str_matches("^[A-Z]{3}$")),
            "air_time": whole(1, 1440, True), "distance": whole(50, 6000), "hour": whole(0, 23), "minute": whole(0, 59),
            "time_hour": pa.Column(pl.Datetime("us", "UTC")),
        },
        checks=[together(pa, rule) for rule in (left, landed, stayed)],
    )  # fmt: skip


if __name__ == "__main__":
    name, what, contract, folder, rounds = sys.argv[1:]
    rows, seconds, refused = {"pandera": pandera, "fastjsonschema": fastjsonschema}[name](what, contract, Path(folder), int(rounds))
    print(json.dumps({"rows": rows, "refused": refused, "seconds": seconds}))
