"""Nested NDJSON, flattened, into a lake, beside DuckDB, Polars with deltalake, and dlt."""

import json

from harness.job import MEMORY, Job, Program, clean, sums
from harness.needs import PROGRAMS, python, quietly

SUMMED = ["id", "user_id", "device_screen_width", "amount"]
DUCK = """copy (select id, "at", kind, amount, "user".id as user_id, "user".name as user_name, "user".address.city as user_address_city,
"user".address.zip as user_address_zip, "user".address.geo.lat as user_address_geo_lat, "user".address.geo.lon as user_address_geo_lon,
device.os as device_os, device.version as device_version, device.screen.width as device_screen_width, device.screen.height as device_screen_height,
unnest(measures), tags, items from read_json('FILE', format = 'newline_delimited')) to 'OUT' (format parquet, compression zstd)"""
POLARS = """
rows = pl.scan_ndjson("FILE").unnest("user", "device", "measures", separator="_").unnest("user_address", "device_screen", separator="_")
rows = rows.unnest("user_address_geo", separator="_")
rows.sink_delta("OUT") if hasattr(rows, "sink_delta") else rows.collect(engine="streaming").write_delta("OUT")
"""


class JsonLake(Job):
    name, title = "json", "Nested NDJSON → flatten → lake"
    inputs = ["events"]
    room = 0.4
    lineitem = False
    left_out = "ingestr and Sling, which write no Delta tables."

    def left_out_here(self):
        return ("dlt at this scale, which takes minutes for a tenth; " if self.big else "") + self.left_out

    def ready(self):
        self.want = json.loads(self.data.file("events.json").read_text())
        size = self.data.file("events").stat().st_size / 1e9
        self.what = (
            f"{self.want[0]:,} events, {size:.2f} GB of NDJSON: 33 columns once records of up to three levels are columns; two lists stay lists. Into a "
            f"Delta table; DuckDB, which writes none, into one Parquet file, within {MEMORY} as Weir."
        )

    def list(self):
        file = self.data.file("events")

        def program(name, folder, command, kind, out, names=SUMMED, **more):
            def prepare():
                # Of all programs: the outputs of one turn are not kept beside the next.
                clean(*(place for name in (".weir", "out", "out.parquet", "state") for place in self.work.glob(f"*/{name}")))
                (self.work / folder).mkdir(exist_ok=True)

            return Program(name, command, lambda said: sums(kind, self.work / folder / out, names), self.want, names, prepare, [file], slack=1e-9, **more)

        command = self.weir(
            "weir",
            f'weir = 1\nname = "bench"\n[source.events.file]\npath = "{file}"\n[transform.flat]\nfrom = "events"\nflatten = {{}}\n'
            '[sink.out]\nfrom = "flat"\nmode = "append"\n[sink.out.lake]\ntable = "bench.events"\n',
        )
        yield program("Weir", "weir", command, "delta", ".weir/lake/bench/events", peer=False)
        query = DUCK.replace("FILE", str(file)).replace("OUT", str(self.work / "duckdb" / "out.parquet"))
        command = [python("tables"), PROGRAMS, "duckdb", MEMORY, self.work / "duckdb", query]
        yield program("DuckDB 2.0, into Parquet", "duckdb", command, "parquet", "out.parquet")
        code = POLARS.replace("FILE", str(file)).replace("OUT", str(self.work / "polars" / "out"))
        yield program("Polars 2.1 and deltalake 1.6", "polars", [python("tables"), PROGRAMS, "polars", code], "delta", "out")
        if not self.big:
            names = [name.replace("user_id", "user__id").replace("device_screen_width", "device__screen__width") for name in SUMMED]
            command = [python("loaders"), PROGRAMS, "dlt_events", file, self.work / "dlt"]
            environment = quietly(self.work / "home")
            yield program("dlt 1.31, filesystem with Delta", "dlt", command, "delta", "out/bench/events", names, environment=environment)
