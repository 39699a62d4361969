"""One CSV file into lake, Postgres and ClickHouse in one run, and into each of them alone."""

import json
import os

from harness.job import KEY, SUMMED, Failed, Job, Program, sums
from harness.needs import server
from harness.servers import Clickhouse, Postgres

SINKS = {
    "lake": 'table = "bench.lineitem"\n',
    "postgres": 'connection = "postgres"\ntable = "lineitem"\n',
    "clickhouse": f'connection = "clickhouse"\ntable = "lineitem"\norder_by = {json.dumps(KEY)}\n',
}
CASTS = (
    'cast = { l_orderkey = "bigint", l_partkey = "bigint", l_suppkey = "bigint", l_linenumber = "int", l_quantity = "decimal(15,2)", '
    'l_extendedprice = "decimal(15,2)", l_discount = "decimal(15,2)", l_tax = "decimal(15,2)" }'
)
LARGEST = "select max(l_orderkey) as a, max(l_partkey) as b, max(l_suppkey) as c, max(l_linenumber) as d, max(l_quantity) as e, " + (
    "max(l_extendedprice) as f, max(l_discount) as g, max(l_tax) as h, max(l_returnflag) as i, max(l_linestatus) as j, max(l_shipdate) as k, "
    "max(l_commitdate) as l, max(l_receiptdate) as m, max(l_shipinstruct) as n, max(l_shipmode) as o, max(l_comment) as p, count(*) as l_rows from lineitem"
)


class FanOut(Job):
    name, title = "fan-out", "CSV → lake, Postgres and ClickHouse in one run"
    inputs = [".csv"]
    room, warms = 2.5, "own"
    left_out = "other programs: none of the peers loads three destinations in one run."

    def left_out_here(self):
        return ("each of them alone, at this scale; " if self.big else "") + self.left_out

    def ready(self):
        found = {}
        for kind in (Postgres, Clickhouse):
            url, pid = self.stack.enter_context(server(kind.kind))
            self.servers.append((kind.kind, pid))
            found[kind.kind] = kind(url, self.work)
        self.postgres, self.clickhouse = found["postgres"], found["clickhouse"]
        self.what = (
            f"TPC-H lineitem at scale {self.scale:g}, {self.facts['rows'][0]:,} rows of CSV, with 8 casts, into the lake, {self.postgres.version} and "
            f"{self.clickhouse.version}, all on the same machine."
        )

    def found(self, sinks):
        """What all of them hold, where it is the same."""
        look = {
            "lake": lambda: sums("delta", self.work / "-".join(sinks) / ".weir" / "lake" / "bench" / "lineitem", SUMMED),
            "postgres": self.postgres.facts,
            "clickhouse": self.clickhouse.facts,
        }
        held = {sink: look[sink]() for sink in sinks}
        for sink, numbers in held.items():
            if numbers is None or [float(number) for number in numbers] != [float(number) for number in self.facts["rows"]]:
                raise Failed(f"{sink} holds {numbers} instead of {self.facts['rows']}")
        return self.facts["rows"]

    def prepare(self):
        self.postgres.database()
        self.clickhouse.database()

    def list(self):
        environment = {**self.postgres.environment, **self.clickhouse.environment}
        start = f'weir = 1\nname = "bench"\n[source.csv.file]\npath = "{self.data.file(".csv")}"\n[transform.lineitem]\nfrom = "csv"\n{CASTS}\n'

        def program(name, sinks):
            pipeline = start + "".join(f'[sink.to_{sink}]\nfrom = "lineitem"\nmode = "append"\n[sink.to_{sink}.{sink}]\n{SINKS[sink]}' for sink in sinks)
            command = self.weir("-".join(sinks), pipeline, self.postgres, self.clickhouse)
            found = lambda said: self.found(sinks)  # noqa: E731
            return Program(name, command, found, self.facts["rows"], SUMMED, self.prepare, [self.data.file(".csv")], environment, peer=False)

        yield program("Weir, all three in one run", list(SINKS))
        if self.big:
            return
        for sink in SINKS:
            yield program(f"Weir, {sink} alone", [sink])
        pipeline = start + f'[transform.largest]\nsql = "{LARGEST}"\n[sink.out]\nfrom = "largest"\nmode = "replace"\n[sink.out.file]\npath = "out.parquet"\n'
        found = lambda said: ["1", *sums("parquet", self.work / "reading" / "out.parquet", ["l_rows"])[1:]]  # noqa: E731
        want = [1, self.facts["rows"][0]]
        command = self.weir("reading", pipeline)
        rest = {"inputs": [self.data.file(".csv")], "rows": self.facts["rows"][0], "peer": False}
        yield Program("Weir, reading alone: the largest of each column", command, found, want, ["l_rows"], self.prepare, **rest)

    def goals(self):
        if self.big:
            return
        three, reading = self.programs[0], self.find("Weir, reading")
        alone = [self.find(f"Weir, {sink}") for sink in SINKS]
        text = "three sinks in one run at most 1.2 × the slowest alone, plus the others' own CPU (what they take beyond reading, over all processors)"
        if not (three.runs and reading and all(alone)):
            yield text, None, ""
            return
        slowest = max(alone, key=lambda program: program.median())
        own = sum(max(0, one.median("client") - reading.median("client")) + one.median("server") for one in alone if one is not slowest)
        goal = 1.2 * slowest.median() + own / os.cpu_count()
        yield text, three.median() <= goal, f"{three.median():.2f} s, and the goal is {goal:.2f} s"
