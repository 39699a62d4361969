"""CSV through SQL into Parquet: a filter with a product, and a join with an aggregate, beside DuckDB and Polars."""

from harness.job import MEMORY, Job, Program, at_most, clean, sums
from harness.needs import PROGRAMS, python, run

FILTER = """select l_orderkey, l_partkey, l_suppkey, l_quantity, l_extendedprice * (1 - l_discount) as revenue, l_returnflag,
       l_linestatus, l_shipdate, l_shipmode, l_comment
from lineitem where l_shipdate >= date '1994-01-01'"""
JOIN = """select o_orderdate, o_orderpriority, l_shipmode, count(*) as lines, sum(l_quantity) as quantity,
       sum(l_extendedprice * (1 - l_discount)) as revenue
from lineitem join orders on o_orderkey = l_orderkey
where o_orderdate >= date '1995-01-01' and o_orderdate < date '1996-01-01' and l_shipdate >= date '1995-03-01'
group by o_orderdate, o_orderpriority, l_shipmode"""
POLARS_FILTER = """
rows = pl.scan_csv("{lineitem}", try_parse_dates=True).filter(c("l_shipdate") >= date(1994, 1, 1))
rows = rows.select("l_orderkey", "l_partkey", "l_suppkey", "l_quantity", (c("l_extendedprice") * (1 - c("l_discount"))).alias("revenue"),
    "l_returnflag", "l_linestatus", "l_shipdate", "l_shipmode", "l_comment")
rows.sink_parquet("{out}", compression="zstd")
"""
POLARS_JOIN = """
orders = pl.scan_csv("{orders}", try_parse_dates=True).filter((c("o_orderdate") >= date(1995, 1, 1)) & (c("o_orderdate") < date(1996, 1, 1)))
rows = pl.scan_csv("{lineitem}", try_parse_dates=True).filter(c("l_shipdate") >= date(1995, 3, 1))
rows = rows.join(orders, left_on="l_orderkey", right_on="o_orderkey").group_by("o_orderdate", "o_orderpriority", "l_shipmode").agg(
    pl.len().alias("lines"), c("l_quantity").sum().alias("quantity"), (c("l_extendedprice") * (1 - c("l_discount"))).sum().alias("revenue"))
rows.sink_parquet("{out}", compression="zstd")
"""


class Csv(Job):
    name, title = "csv", "CSV → filter, projection, one product → Parquet"
    inputs = [".csv"]
    room = 0.3
    sql, code, summed = FILTER, POLARS_FILTER, ["l_orderkey", "revenue"]
    tables = ["lineitem"]

    def ready(self):
        self.paths = {"lineitem": self.data.file(".csv")} | ({"orders": self.data.file("orders")} if "orders" in self.tables else {})
        size = sum(file.stat().st_size for file in self.paths.values())
        self.what = f"TPC-H {' and '.join(self.tables)} at scale {self.scale:g}: {size / 1e9:.2f} GB of CSV. DuckDB has Weir's memory limit, Polars knows none."
        # What must come out is DuckDB's answer, without a limit and before the clock starts.
        out = self.work / "meant.parquet"
        run(*self.duck(out, "16GB"))
        self.want = sums("parquet", out, self.summed)
        clean(out)

    def duck(self, out, limit):
        query = self.sql
        for name, path in self.paths.items():
            query = query.replace(f"from {name} ", f"from read_csv('{path}') ").replace(f"join {name} ", f"join read_csv('{path}') ")
        copy = f"copy ({query}) to '{out}' (format parquet, compression zstd)"
        return [python("tables"), PROGRAMS, "duckdb", limit, self.work / "duckdb", copy]

    def list(self):
        def program(name, folder, command, **more):
            out = self.work / folder / "out.parquet"

            def prepare():
                # Of all programs: the outputs of one turn are not kept beside the next.
                clean(*self.work.glob("*/out.parquet"), *self.work.glob("*/.weir"))
                out.parent.mkdir(exist_ok=True)

            found = lambda said: sums("parquet", out, self.summed)  # noqa: E731
            inputs = list(self.paths.values())
            return Program(name, command, found, self.want, self.summed, prepare, inputs, slack=1e-9, rows=self.facts["rows"][0], **more)

        sources = "".join(f'[source.{name}.file]\npath = "{path}"\n' for name, path in self.paths.items())
        end = '[sink.out]\nfrom = "rows"\nmode = "replace"\n[sink.out.file]\npath = "out.parquet"\n'
        yield program("Weir", "weir", self.weir("weir", f'weir = 1\nname = "bench"\n{sources}[transform.rows]\nsql = """\n{self.sql}\n"""\n{end}'), peer=False)
        yield program("DuckDB 2.0", "duckdb", self.duck(self.work / "duckdb" / "out.parquet", MEMORY))
        code = self.code.format(**self.paths, out=self.work / "polars" / "out.parquet")
        yield program("Polars 2.1", "polars", [python("tables"), PROGRAMS, "polars", code])

    def goals(self):
        ratios = [ratio for ratio in map(self.ratio, ("DuckDB", "Polars")) if ratio]
        yield at_most("no slower than the faster of DuckDB and Polars", 1, max(ratios) if ratios else None)


class CsvJoin(Csv):
    name, title = "csv-join", "CSV → filter, join, aggregate → Parquet"
    inputs = [".csv", "orders"]
    room = 0.1
    sql, code, summed = JOIN, POLARS_JOIN, ["lines", "quantity", "revenue"]
    tables = ["lineitem", "orders"]
