"""Reads and writes tables with other people's code, so that a test never grades Weir by Weir.

  referee.py delta TABLE              rows of a Delta table as CSV (deltalake)
  referee.py file FORMAT PATH         rows of a file or a folder of files as CSV (pyarrow); FORMAT: parquet csv ndjson arrow
  referee.py append TABLE JSON        says "ready", waits for a line, appends the row, says the new version
  referee.py postgres URL SQL         rows of a query as CSV (psycopg); a statement without rows says nothing
  referee.py clickhouse URL SQL       the same (clickhouse-connect)
  referee.py session KIND URL         answers lines of {"database": …, "sql": …} with lines of {"rows": CSV} or {"error": …}, KIND as above
"""

import csv
import datetime
import decimal
import glob
import json
import os
import sys


def cell(value):
    """The spelling of `weir sql --format csv`: nulls empty, times in ISO 8601, nested values as JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.datetime):
        text = value.replace(tzinfo=None).isoformat()
        return text + ("Z" if value.tzinfo else "")
    if isinstance(value, (list, dict)):
        return json.dumps(value, default=str, separators=(",", ":"))
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (datetime.date, datetime.time, decimal.Decimal, float, int, str)):
        return str(value)
    return str(value)


def postgres(url, database):
    """A function from a statement to its column names and rows."""
    import psycopg

    connection = psycopg.connect(url, autocommit=True, connect_timeout=10, **({"dbname": database} if database else {}))

    def ask(sql):
        with connection.cursor() as cursor:
            cursor.execute(sql)
            if cursor.description is None:
                return None
            return [column.name for column in cursor.description], cursor.fetchall()

    return ask


def clickhouse(url, database):
    import urllib.parse

    import clickhouse_connect

    parts = urllib.parse.urlsplit(url)
    own = parts.path.strip("/") or "default"
    client = clickhouse_connect.get_client(
        host=parts.hostname, port=parts.port, interface=parts.scheme, username=urllib.parse.unquote(parts.username or "default"),
        password=urllib.parse.unquote(parts.password or ""), database=database or own, autogenerate_session_id=False, verify=False)

    def ask(sql):
        if sql.split(None, 1)[0].lower() in ("select", "with", "show", "describe", "desc", "exists", "explain", "check"):
            found = client.query(sql)
            return list(found.column_names), found.result_rows
        client.command(sql)
        return None

    return ask


def show_rows(found, out):
    if found is not None:
        names, rows = found
        out = csv.writer(out, lineterminator="\n")
        out.writerow(names)
        out.writerows([cell(value) for value in row] for row in rows)


def session(kind, url):
    """One process for the many questions of a test: starting Python for each costs more than the answers."""
    import io

    open_, kept = {"postgres": postgres, "clickhouse": clickhouse}[kind], {}
    for line in sys.stdin:
        asked = json.loads(line)
        database = asked.get("database")
        try:
            if database in kept:
                # The server may have been killed and started again since the last question.
                try:
                    kept[database]("select 1")
                except Exception:
                    del kept[database]
            if database not in kept:
                kept[database] = open_(url, database)
            out = io.StringIO()
            show_rows(kept[database](asked["sql"]), out)
            answer = {"rows": out.getvalue()}
        except Exception as error:
            answer = {"error": str(error) or repr(error)}
        print(json.dumps(answer), flush=True)


def show(table):
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(table.column_names)
    columns = [column.to_pylist() for column in table.columns]
    for row in zip(*columns):
        out.writerow([cell(value) for value in row])


def read_file(format, path):
    import pyarrow as pa

    paths = sorted(p for p in glob.glob(os.path.join(path, "**"), recursive=True) if os.path.isfile(p)) if os.path.isdir(path) else [path]
    tables = []
    for one in paths:
        if format == "parquet":
            import pyarrow.parquet as pq

            tables.append(pq.ParquetFile(one).read())
        elif format == "csv":
            import pyarrow.csv as pc

            tables.append(pc.read_csv(one))
        elif format == "ndjson":
            import pyarrow.json as pj

            tables.append(pj.read_json(one))
        elif format == "arrow":
            with pa.memory_map(one) as source:
                tables.append(pa.ipc.open_file(source).read_all())
        else:
            sys.exit(f"unknown format {format}")
    if not tables:
        sys.exit(f"nothing at {path}")
    return pa.concat_tables(tables)


def main():
    what, *rest = sys.argv[1:]
    if what == "delta":
        import pyarrow as pa
        from deltalake import DeltaTable

        show(pa.table(DeltaTable(rest[0]).to_pyarrow_table()))
    elif what == "file":
        show(read_file(*rest))
    elif what in ("postgres", "clickhouse"):
        url, sql = rest
        show_rows({"postgres": postgres, "clickhouse": clickhouse}[what](url, None)(sql), sys.stdout)
    elif what == "session":
        session(*rest)
    elif what == "append":
        import pyarrow as pa
        from deltalake import DeltaTable, write_deltalake

        table = DeltaTable(rest[0])
        row = json.loads(rest[1])
        # The row in the table's own types: what a well-behaved other program writes.
        schema = pa.schema(table.schema().to_arrow())
        rows = pa.Table.from_pylist([row], schema=schema)
        print("ready", flush=True)
        sys.stdin.readline()
        write_deltalake(rest[0], rows, mode="append")
        print(DeltaTable(rest[0]).version(), flush=True)
    else:
        sys.exit(__doc__)


main()
# The readers' own threads can abort the interpreter on its way out, when everything has been said.
sys.stdout.flush()
os._exit(0)
