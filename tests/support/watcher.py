"""Watches three destinations as readers do, while a test kills things: none of it is Weir's.

  watcher.py LAKE POSTGRES_URL CLICKHOUSE_URL DATABASE

The tables are `all` and `latest`: in the lake's folder LAKE, in Postgres' schema `out`, in ClickHouse's DATABASE.

Polls without pause what each table shows, grouped by the file its rows came from, and obeys lines on standard input:
  seen      every different answer since the last `seen`, as JSON: {"lake.all": ["0:100 1:100", …], …}; then forgets them
  rows      every table's rows, as JSON: {"lake.all": ["id,version,name", …], …}, sorted
  end       stops
A server that is away is no answer: it is asked again.
"""

import json
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import psycopg
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

lake, postgres, clickhouse, database = sys.argv[1:5]
TABLES = ["all", "latest"]
COUNTS = 'select version, count(*) from {} group by version order by version'
ROWS = 'select id, version, name from {}'


class Lake:
    name = "lake"

    def ask(self, table, whole):
        try:
            rows = DeltaTable(f"{lake}/{table}").to_pyarrow_table(columns=["id", "version", "name"])
        except TableNotFoundError:
            return None
        if whole:
            return list(zip(*(rows.column(name).to_pylist() for name in ["id", "version", "name"])))
        counts = rows.group_by("version").aggregate([([], "count_all")]).to_pydict()
        return sorted(zip(counts["version"], counts["count_all"]))


class Postgres:
    name = "postgres"
    connection = None

    def ask(self, table, whole):
        try:
            if self.connection is None:
                self.connection = psycopg.connect(postgres, autocommit=True, connect_timeout=5)
            return self.connection.execute((ROWS if whole else COUNTS).format(f'"out"."{table}"')).fetchall()
        except psycopg.errors.UndefinedTable:
            return None
        except psycopg.Error:
            if self.connection is not None:
                self.connection.close()
            self.connection = None
            raise


class Clickhouse:
    name = "clickhouse"

    def ask(self, table, whole):
        final = " final" if table == "latest" else ""
        query = (ROWS if whole else COUNTS).format(f"`{database}`.`{table}`{final}") + " format JSONCompactEachRow"
        url = urllib.parse.urlsplit(clickhouse)
        request = urllib.request.Request(f"{url.scheme}://{url.hostname}:{url.port}/", data=query.encode())
        request.add_header("X-ClickHouse-User", url.username or "default")
        request.add_header("X-ClickHouse-Key", urllib.parse.unquote(url.password or ""))
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            if error.headers.get("X-ClickHouse-Exception-Code") in ("60", "81"):
                return None
            raise
        # 64-bit integers come as text.
        return [tuple(int(value) if str(value).lstrip("-").isdigit() else value for value in json.loads(line)) for line in text.splitlines()]


KINDS = [Lake, Postgres, Clickhouse]
AWAY = (OSError, psycopg.Error, DeltaError, ValueError)
seen, lock, ended = {}, threading.Lock(), threading.Event()


def poll(kind):
    reader = kind()
    while not ended.is_set():
        for table in TABLES:
            try:
                rows = reader.ask(table, whole=False)
            except AWAY:
                time.sleep(0.02)
                continue
            text = "none" if rows is None else " ".join(f"{version}:{count}" for version, count in rows)
            with lock:
                seen.setdefault(f"{kind.name}.{table}", set()).add(text)
        time.sleep(0.005)


def rows_of(kind, table):
    reader = kind()
    for attempt in range(100):
        try:
            rows = reader.ask(table, whole=True)
            return sorted(",".join(str(value) for value in row) for row in rows or [])
        except AWAY as error:
            last = error
            time.sleep(0.1)
    raise last


for kind in KINDS:
    threading.Thread(target=poll, args=(kind,), daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "seen":
        with lock:
            answer = {name: sorted(texts) for name, texts in seen.items()}
            seen.clear()
    elif line.strip() == "rows":
        answer = {f"{kind.name}.{table}": rows_of(kind, table) for kind in KINDS for table in TABLES}
    else:
        ended.set()
        break
    print(json.dumps(answer), flush=True)
