"""Out of Postgres: a whole table into ClickHouse, and the one row in a hundred that has changed into a lake."""

import json
import os
import shutil
import sys
import urllib.parse

from harness.job import KEY, SUMMED, Failed, Job, Program, clean, sums
from harness.measure import measure
from harness.needs import PROGRAMS, TARGET, ingestr, made, python, quietly, server, sling
from harness.servers import NAMES, Clickhouse, Postgres, quiet


class FromPostgres(Job):
    """A Postgres that holds lineitem."""

    inputs = [".csv", ".pgcopy"]

    def wants(self):
        return [] if self.big else self.inputs

    def fill(self):
        """Rows into `lineitem` of the database "bench", which is there."""
        url, pid = self.stack.enter_context(server("postgres"))
        self.servers.append(("postgres", pid))
        self.postgres = Postgres(url, self.work)
        self.postgres.with_table()
        if self.big:
            self.postgres.ask(self.postgres.url, f"\\copy lineitem from program '{TARGET}/release/lineitem {self.scale:g}' with (format csv, header)")
        else:
            made(self.data.file(".pgcopy"), lambda part: self.postgres.encoded(self.data.file(".csv"), part))
            self.postgres.with_table()
            self.postgres.ask(self.postgres.url, f"\\copy lineitem from '{self.data.file('.pgcopy')}' with (format binary)")
        self.postgres.ask(self.postgres.url, "vacuum analyze lineitem")


class IntoClickhouse(FromPostgres):
    name, title = "postgres-clickhouse", "Postgres → ClickHouse"
    room, warms = 2.2, "own"

    def left_out_here(self):
        few = "Sling and ADBC at this scale; " if self.big else ""
        return few + "dlt and ingestr, which reach ClickHouse over its native protocol only, and no server with that can be installed here."

    def ready(self):
        self.fill()
        url, pid = self.stack.enter_context(server("clickhouse"))
        self.servers.append(("clickhouse", pid))
        self.clickhouse = Clickhouse(url, self.work)
        self.what = (
            f"TPC-H lineitem at scale {self.scale:g}, {self.facts['rows'][0]:,} rows, out of {self.postgres.version} into {self.clickhouse.version}, "
            "both on the same machine."
        )

    def list(self):
        def program(name, command, prepare, environment=None, **more):
            return Program(name, command, lambda said: self.clickhouse.facts(), self.facts["rows"], SUMMED, prepare, [], environment or {}, **more)

        pipeline = (
            'weir = 1\nname = "between"\n[source.lineitem.postgres]\nconnection = "postgres"\ntable = "public.lineitem"\n[sink.out]\nfrom = "lineitem"\n'
            f'mode = "append"\n[sink.out.clickhouse]\nconnection = "clickhouse"\ntable = "lineitem"\norder_by = {json.dumps(KEY)}\n'
        )
        command = self.weir("weir", pipeline, self.postgres, self.clickhouse)
        environment = {**self.postgres.environment, **self.clickhouse.environment}
        yield program("Weir, append into a new table", command, self.clickhouse.database, environment, peer=False)
        place = urllib.parse.urlsplit(self.postgres.url)
        theirs = f"postgresql('{place.hostname}:{place.port}', 'bench', 'lineitem', '{place.username}', '{place.password or ''}')"
        statement = f"insert into lineitem select {', '.join(NAMES)} from {theirs}"
        command = [sys.executable, PROGRAMS, "statement", self.clickhouse.url, statement]
        yield program("ClickHouse's own table function `postgresql`", command, self.clickhouse.with_table)
        if self.big:
            return
        command = [python("loaders"), PROGRAMS, "between", self.postgres.url, self.clickhouse.url]
        yield program("ADBC 1.13 into clickhouse-connect 1.12", command, self.clickhouse.with_table)
        command = [sling(), "run", "--src-conn", self.postgres.url + "?sslmode=disable", "--src-stream", "public.lineitem"]
        command += ["--tgt-conn", "BENCH", "--tgt-object", "bench.lineitem", "--mode", "full-refresh"]
        environment = {**quiet(self.work), "BENCH": json.dumps({"type": "clickhouse", "http_url": f"{self.clickhouse.url}/bench"})}
        yield program("Sling 1.4.11, full refresh", command, self.clickhouse.database, environment)


class Incremental(FromPostgres):
    name, title = "incremental", "Postgres → lake, one row in a hundred changed"
    room, warms = 7.5, "none"

    def need(self):
        self.room = 2.6 if self.big else self.room
        return super().need()

    def left_out_here(self):
        few = "dlt, ingestr and Sling at this scale. " if self.big else ""
        return few + "ingestr and Sling into a lake: they write no Delta tables, and would download DuckDB; they merge into a Postgres instead."

    def ready(self):
        self.fill()
        ask, url = self.postgres.ask, self.postgres.url
        # The cursor differs from order to order, as times of change do.
        ask(
            url,
            "create table lines as select *, timestamptz '2020-01-01Z' + make_interval(secs => l_orderkey) as updated_at from lineitem",
            "drop table lineitem",
            f"alter table lines {', '.join(f'alter {name} set not null' for name in [*NAMES, 'updated_at'])}, add primary key ({', '.join(KEY)})",
            "create index on lines (updated_at)",
            "vacuum analyze lines",
            "checkpoint",
        )
        self.first = list(self.ways())
        for program in self.first:
            program.prepare()
            try:
                measure(list(map(str, program.command)), program.environment)
            except Failed as failed:
                program.failure = f"the first load: {failed}"
            else:
                program.keep()
        change = "set l_quantity = l_quantity + 1, updated_at = timestamptz '2030-01-01Z' + make_interval(secs => l_orderkey)"
        ask(url, f"update lines {change} where l_orderkey % 100 = 1", "vacuum analyze lines", "checkpoint")
        changed = int(ask(url, "select count(*) from lines where updated_at >= '2030-01-01Z'"))
        self.want = self.postgres.facts("lines")
        for program in self.first:
            program.want = self.want
        self.what = (
            f"TPC-H lineitem at scale {self.scale:g} in {self.postgres.version}, {self.facts['rows'][0]:,} rows with a time of change, all loaded before; "
            f"then {changed:,} were changed, and the run that is measured merges these by their key. Every program starts each turn where it stood after "
            "its first load; rows/s are of the whole table."
        )

    def list(self):
        return self.first

    def ways(self):
        """Programs that prepare their place empty until `keep` has kept it, and as it was then afterwards."""
        url = self.postgres.url

        def program(name, folder, command, found, environment, files=lambda: None, **more):
            place, first = self.work / folder, self.work / f"{folder}-first"

            def prepare():
                clean(place)
                if first.exists():
                    # Data files are never written again; the rest is.
                    link = lambda one, two: os.link(one, two) if one.endswith(".parquet") else shutil.copy2(one, two)  # noqa: E731
                    shutil.copytree(first, place, copy_function=link)
                else:
                    place.mkdir()
                    files()

            made = Program(name, command, found, [], SUMMED, prepare, [], environment, **more)
            made.keep = lambda: place.rename(first)
            return made

        def copied(name, folder, command, environment):
            """The same where what is kept is a database of the same Postgres."""
            ask, admin, target = self.postgres.ask, self.postgres.admin, Postgres(url, self.work)
            target.url = self.target(folder)
            first = []

            def prepare():
                clean(self.work / folder)
                (self.work / folder).mkdir()
                template = f"template {folder}_first strategy file_copy" if first else ""
                ask(admin, f"drop database if exists {folder} with (force)", f"create database {folder} {template}", "checkpoint")

            made = Program(name, command, lambda said: target.facts("lines"), [], SUMMED, prepare, [], environment)
            made.keep = lambda: first.append(ask(admin, f"alter database {folder} rename to {folder}_first"))
            return made

        pipeline = (
            'weir = 1\nname = "lines"\n[source.lines]\nincremental = { cursor = "updated_at" }\n[source.lines.postgres]\nconnection = "postgres"\n'
            f'table = "public.lines"\n[sink.out]\nfrom = "lines"\nmode = "merge"\nkey = {json.dumps(KEY)}\n[sink.out.lake]\ntable = "bench.lines"\n'
        )
        lake = self.work / "weir" / ".weir" / "lake" / "bench" / "lines"
        found = lambda said: sums("delta", lake, SUMMED)  # noqa: E731
        files = lambda: self.weir("weir", pipeline, self.postgres)  # noqa: E731
        yield program("Weir, merge into the lake", "weir", files(), found, self.postgres.environment, files, peer=False)
        if self.big:
            return
        command = [python("loaders"), PROGRAMS, "dlt_incremental", url.replace("postgresql:", "postgresql+psycopg2:"), self.work / "dlt"]
        found = lambda said: sums("delta", self.work / "dlt" / "out" / "bench" / "lines", SUMMED)  # noqa: E731
        yield program("dlt 1.31, upsert into Delta", "dlt", command, found, quietly(self.work / "dlt"))
        command = [ingestr(), "ingest", "--yes", "--progress", "log", "--source-uri", f"{url}?sslmode=disable", "--source-table", "public.lines"]
        command += ["--dest-uri", f"{self.target('ingestr')}?sslmode=disable", "--dest-table", "public.lines", "--incremental-strategy", "merge"]
        command += ["--incremental-key", "updated_at", "--primary-key", KEY[0], "--primary-key", KEY[1]]
        yield copied("ingestr 0.15.9, merge into Postgres", "ingestr", command, quietly(self.work / "ingestr"))
        command = [sling(), "run", "--src-conn", f"{url}?sslmode=disable", "--src-stream", "public.lines", "--tgt-object", "public.lines"]
        command += ["--tgt-conn", f"{self.target('sling')}?sslmode=disable", "--mode", "incremental"]
        command += ["--primary-key", ",".join(KEY), "--update-key", "updated_at"]
        yield copied("Sling 1.4.11, incremental into Postgres", "sling", command, quietly(self.work / "sling"))

    def target(self, name):
        """The URL of another database."""
        return self.postgres.url.rpartition("/")[0] + f"/{name}"
