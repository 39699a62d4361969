"""What a command takes that has next to nothing to do: start, check a project, run ten rows."""

import json

from harness.job import MEMORY, Job, Program, clean, sums
from harness.needs import PROGRAMS, python, quietly, sling

ROWS = "id,name,amount,day\n" + "".join(f"{at},name {at},{at * 1.25},2026-03-{at:02}\n" for at in range(1, 11))
RULES = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"}, "name": {"type": "string"}, "amount": {"type": "number", "minimum": 0}, "day": {"type": "string", "format": "date"},
    },
    "required": ["id", "name", "amount", "day"],
}  # fmt: skip
WANT = [10, 55, 68.75]
SUMMED = ["id", "amount"]


class Startup(Job):
    name, title = "startup", "Start-up, check, and ten rows"
    scaled = lineitem = False
    room = 0.1

    def ready(self):
        self.what = (
            "`weir --version`; `weir check` of a project with one pipeline, its contract and an expectation; a run of that pipeline over ten rows of CSV into "
            "the lake. The other programs write the ten rows into a Parquet file; Sling, which would download what writes that, into CSV."
        )
        (self.work / "few.csv").write_text(ROWS)

    def list(self):
        def prepare(folder):
            clean(self.work / folder / ".weir", self.work / folder / "out", self.work / folder / "out.parquet", self.work / folder / "out.csv", self.work / folder / "state")
            (self.work / folder).mkdir(exist_ok=True)

        def program(name, folder, command, kind, out, **more):
            found = lambda said: sums(kind, self.work / folder / out, SUMMED)  # noqa: E731
            return Program(name, command, found, WANT, SUMMED, lambda: prepare(folder), [self.work / "few.csv"], slack=1e-9, **more)

        pipeline = (
            'weir = 1\nname = "few"\n[source.rows]\ncontract = "rows.schema.json"\n[source.rows.file]\npath = "../few.csv"\n'
            '[transform.kept]\nsql = "select id, name, amount, day from rows where amount > 0"\n'
            '[[expect]]\non = "kept"\nname = "ids are positive"\nsql = "select * from kept where id < 1"\n'
            '[sink.out]\nfrom = "kept"\nmode = "append"\n[sink.out.lake]\ntable = "bench.few"\n'
        )
        command = self.weir("weir", pipeline)
        (self.work / "weir" / "rows.schema.json").write_text(json.dumps(RULES))
        yield program("Weir, a run of ten rows", "weir", command, "delta", ".weir/lake/bench/few", peer=False)
        weir = self.bench.weir
        for name, words in (("Weir, `weir check`", ["check", self.work / "weir" / "pipeline.toml"]), ("Weir, `weir --version`", ["--version"])):
            yield Program(name, [weir, *words], lambda said: [], [], peer=False)

        out = self.work / "duckdb" / "out.parquet"
        query = f"copy (select * from read_csv('{self.work / 'few.csv'}') where amount > 0) to '{out}' (format parquet)"
        yield program("DuckDB 2.0, in Python", "duckdb", [python("tables"), PROGRAMS, "duckdb", MEMORY, self.work / "duckdb", query], "parquet", "out.parquet")
        code = f'pl.scan_csv("{self.work / "few.csv"}", try_parse_dates=True).filter(c("amount") > 0).sink_parquet("{self.work / "polars" / "out.parquet"}")'
        yield program("Polars 2.1", "polars", [python("tables"), PROGRAMS, "polars", code], "parquet", "out.parquet")
        quiet = quietly(self.work / "home")
        command = [sling(), "run", "--src-stream", f"file://{self.work / 'few.csv'}", "--tgt-object", f"file://{self.work / 'sling' / 'out.csv'}"]
        yield program("Sling 1.4.11, into CSV", "sling", command, "csv", "out.csv", environment=quiet)
        command = [python("loaders"), PROGRAMS, "dlt_few", self.work / "few.csv", self.work / "dlt"]
        yield program("dlt 1.31, filesystem", "dlt", command, "parquet", "out/bench/few/*.parquet", environment=quiet)

    def goals(self):
        ten = self.find("Weir, a run")
        yield "a run of ten rows in at most 150 ms", ten and ten.median() <= 0.15, f"{ten.median() * 1e3:.0f} ms" if ten else ""
