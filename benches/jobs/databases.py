"""Parquet into Postgres, appended and merged, and into ClickHouse, beside the servers' own loaders and other programs."""

import json
import sys

from harness.job import KEY, Job, Program, at_least, inverse
from harness.needs import PROGRAMS, SERVERS, ingestr, made, python, server, sling
from harness.servers import NAMES, SUMMED, Clickhouse, Postgres, quiet

MINE = "Weir, append into a new table"


class Into(Job):
    """What both databases share."""

    kind = None

    def ready(self):
        url, pid = self.stack.enter_context(server(self.kind.kind))
        self.servers = [(self.kind.kind, pid)]
        self.database = self.kind(url, self.work)

    def program(self, name, command, prepare, inputs, environment=None, facts="rows", **more):
        found = more.pop("found", lambda said: self.database.facts())
        return Program(name, command, found, self.facts[facts], SUMMED, prepare, [self.data.file(end) for end in inputs], environment or {}, **more)

    def loads(self, name, end, mode, more=""):
        """Weir's command for a file."""
        kind = self.kind.kind
        pipeline = (
            f'weir = 1\nname = "load"\n[source.lineitem.file]\npath = "{self.data.file(end)}"\n[sink.out]\nfrom = "lineitem"\n{mode}\n'
            f'[sink.out.{kind}]\nconnection = "{kind}"\ntable = "lineitem"\n{more}\n'
        )
        return self.weir(name, pipeline, self.database), self.database.environment


class IntoPostgres(Into):
    name, title, kind = "postgres", "Loading lineitem into Postgres", Postgres
    limit = "psql, COPY of a pre-encoded binary file (the limit)"
    merge_limit = "merge: psql, binary COPY and insert … on conflict"
    inputs = [".csv", ".parquet", ".arrow", ".pgcopy", "-change.csv", "-change.parquet", "-change.pgcopy"]
    room, warms = 3.5, "none"  # two databases, and the log

    @property
    def left_out(self):
        if self.big:
            return "the merges and all other programs at this scale, as the files that they read and the copies of the table would fill the disk."
        return "merges by dlt and ingestr, which want columns of their own in the table that is there; ADBC has no merge."

    def wants(self):
        return [".parquet"] if self.big else self.inputs

    def need(self):
        self.room = 1.2 if self.big else self.room
        return super().need()

    def ready(self):
        super().ready()
        self.what = (
            f"TPC-H lineitem at scale {self.scale:g}, {self.facts['rows'][0]:,} rows, from Parquet into {self.database.version} on the same machine."
        )
        if self.big:
            return
        database = self.database
        for end in ("", "-change"):
            made(self.data.file(f"{end}.pgcopy"), lambda part, end=end: database.encoded(self.data.file(f"{end}.csv"), part))
        database.with_table()
        database.ask(database.url, f"\\copy lineitem from '{self.data.file('.pgcopy')}' with (format binary)")
        database.ask(database.url, f"alter table lineitem add primary key ({', '.join(KEY)})", "vacuum analyze lineitem")
        database.ask(database.admin, "drop database if exists base", "alter database bench rename to base")
        self.notes.append(
            f"The merges bring {self.facts['change'][0]:,} rows (5 % changed, 1 % new) into the {self.facts['rows'][0]:,}, which have a primary key; "
            "their limit is `insert … on conflict`, and Weir's merge is what they are compared with."
        )

    def with_rows(self):
        self.database.database("base")

    def list(self):
        database, program = self.database, self.program
        command, environment = self.loads("new", ".parquet", 'mode = "append"')
        yield program(MINE, command, database.database, [".parquet"], environment, peer=False)
        command, environment = self.loads("existing", ".parquet", 'mode = "append"')
        yield program("Weir, append into an existing empty table", command, database.with_table, [".parquet"], environment, peer=False)
        if self.big:
            return
        csv, parquet, arrow, binary = (self.data.file(end) for end in (".csv", ".parquet", ".arrow", ".pgcopy"))
        command = database.statements(f"\\copy lineitem from '{binary}' with (format binary)")
        yield program(self.limit, command, database.with_table, [".pgcopy"], peer=False)
        command = database.statements(f"\\copy lineitem from '{csv}' with (format csv, header)")
        yield program("psql, \\copy of CSV", command, database.with_table, [".csv"])
        command = [python("loaders"), PROGRAMS, "adbc", database.url, parquet]
        yield program("ADBC 1.13, adbc_ingest from Parquet", command, database.database, [".parquet"])

        url = database.url + "?sslmode=disable"
        into = [sling(), "run", "--tgt-conn", url, "--tgt-object", "public.lineitem"]
        command = [*into, "--src-stream", f"file://{csv}", "--mode", "full-refresh"]
        yield program("Sling 1.4.11, full refresh from CSV", command, database.database, [".csv"], quiet(self.work))
        command = [python("loaders"), PROGRAMS, "dlt", database.url, parquet, self.work / "dlt"]
        yield program("dlt 1.31, append from Parquet", command, database.database, [".parquet"], quiet(self.work))
        command = [ingestr(), "ingest", "--yes", "--progress", "log", "--source-uri", f"mmap://{arrow}", "--source-table", "lineitem"]
        command += ["--dest-uri", url, "--dest-table", "public.lineitem"]
        yield program("ingestr 0.15.9, replace from an Arrow file", command, database.database, [".arrow"], quiet(self.work))

        command, environment = self.loads("merge", "-change.parquet", f'mode = "merge"\nkey = {json.dumps(KEY)}')
        merge = program("merge: Weir", command, self.with_rows, ["-change.parquet"], environment, "merged", peer=False)
        yield merge
        sets = ", ".join(f"{name} = excluded.{name}" for name in NAMES if name not in KEY)
        command = database.statements(
            "create temporary table change (like lineitem) on commit drop",
            f"\\copy change from '{self.data.file('-change.pgcopy')}' with (format binary)",
            f"insert into lineitem select * from change on conflict ({', '.join(KEY)}) do update set {sets}",
        )
        yield program(self.merge_limit, command, self.with_rows, ["-change.pgcopy"], facts="merged", peer=False, again=merge)
        command = [*into, "--src-stream", f"file://{self.data.file('-change.csv')}", "--mode", "incremental", "--primary-key", ",".join(KEY)]
        yield program("merge: Sling 1.4.11, incremental from CSV", command, self.with_rows, ["-change.csv"], quiet(self.work), "merged", again=merge)

    def goals(self):
        if self.big:
            return
        for start, goal, text in (
            (self.limit, 0.95, "0.95 × the speed of COPY from a pre-encoded file"), ("psql, \\copy of CSV", 1.6, "1.6 × the speed of `\\copy` of CSV"),
            ("Sling", 8, "8 × Sling's speed"), ("ADBC", 1.6, "1.6 × ADBC's speed"),
        ):  # fmt: skip
            yield at_least(f"append into a new table at {text}", goal, inverse(self.ratio(start)))


class IntoClickhouse(Into):
    name, title, kind = "clickhouse", "Loading lineitem into ClickHouse", Clickhouse
    limit = "the engine, from an Arrow file (the limit)"
    inputs = [".csv", ".parquet", ".arrows"]
    room, warms = 0.8, "own"
    difference = ""

    @property
    def left_out(self):
        few = "all other programs at this scale, and the limit, whose Arrow file would fill the disk; " if self.big else ""
        return few + "dlt and ingestr, which reach ClickHouse over its native protocol only; PyPI has no ADBC driver for it."

    def wants(self):
        return [".parquet"] if self.big else self.inputs

    def ready(self):
        super().ready()
        self.what = (
            f"TPC-H lineitem at scale {self.scale:g}, {self.facts['rows'][0]:,} rows, from Parquet into {self.database.version} on the same machine."
        )
        self.notes.append(
            "The limit is one statement to the engine that the other jobs load too, after a turn that is not counted and warms it. It is ClickHouse's "
            "current engine behind an HTTP front in Python (tests/support/clickhouse.py), because no registry carries a server: what the front costs "
            "is neither Weir's nor a real server's. The trivial client shows how much that is: it does nothing but send the file's bytes. The server's "
            "CPU seconds are engine and front together."
        )

    def warmed(self, program):
        if program.name == MINE:
            columns = "select name, type from system.columns where database = 'bench' and table = 'lineitem' and not startsWith(name, '_')"
            theirs = self.database.ask(columns)
            self.database.with_table()
            if theirs != self.database.ask(columns):
                self.notes.append(f"The columns of Weir's table differ from the limit's: `{' '.join(theirs.split())}`.")

    def list(self):
        database, program = self.database, self.program
        parquet, csv, arrows = (self.data.file(end) for end in (".parquet", ".csv", ".arrows"))
        order = f"order_by = {json.dumps(KEY)}"
        command, environment = self.loads("new", ".parquet", 'mode = "append"', order)
        yield program(MINE, command, database.database, [".parquet"], environment, peer=False)
        engine = [sys.executable, PROGRAMS, "statement", database.url]
        command = [*engine, f"insert into lineitem select * from file('{parquet}', 'Parquet')"]
        yield program("the engine, from the Parquet file", command, database.with_table, [".parquet"], peer=False)
        if self.big:
            return
        command, environment = self.loads("arrow", ".arrows", 'mode = "append"', order)
        yield program("Weir, append into a new table, from the limit's Arrow file", command, database.database, [".arrows"], environment, peer=False)
        command = [*engine, f"insert into lineitem select * from file('{arrows}', 'ArrowStream')"]
        yield program(self.limit, command, database.with_table, [".arrows"], peer=False)
        yield program("the same, into a table that takes no nulls", command, lambda: database.with_table(False), [".arrows"], peer=False)
        command = [SERVERS / "bin" / "python", PROGRAMS, "alone", self.work / "engine", database.ddl(), arrows]
        told = lambda said: next(line for line in said.splitlines() if line.startswith("facts ")).split()[1:]  # noqa: E731
        name = "an engine of its own, just started, from an Arrow file"
        yield program(name, command, database.database, [".arrows"], peer=False, found=told)
        command = [sys.executable, PROGRAMS, "raw", database.url, arrows]
        yield program("a trivial client that sends the Arrow file's bytes", command, database.with_table, [".arrows"], peer=False)
        command = [python("loaders"), PROGRAMS, "connect", database.url, parquet]
        yield program("clickhouse-connect 1.12, insert_arrow from Parquet", command, database.with_table, [".parquet"])
        command = [sling(), "run", "--tgt-conn", "BENCH", "--tgt-object", "bench.lineitem", "--src-stream", f"file://{csv}", "--mode", "full-refresh"]
        environment = {**quiet(self.work), "BENCH": json.dumps({"type": "clickhouse", "http_url": f"{database.url}/bench"})}
        yield program("Sling 1.4.11, full refresh from CSV", command, database.database, [".csv"], environment)

    def goals(self):
        if not self.big:
            yield at_least("append into a new table at 0.85 × the limit's speed", 0.85, inverse(self.ratio(self.limit)))
