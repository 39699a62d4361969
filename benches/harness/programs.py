"""What the benches run in the peers' own Python: programs.py PROGRAM ARGUMENTS. Makes the data and looks at what arrived too.

Each program is what its documentation shows for this job, and no more.
"""

import json
import sys
import time
import urllib.parse


def data(prefix, *ends):
    """Reads lineitem as CSV from standard input and writes it in the formats that are asked for, and a change of it: 5 % with other values and
    1 % new. Counts and sums go to PREFIX.json, last. One pass: no format is held in memory."""
    import contextlib
    import decimal

    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv
    import pyarrow.parquet

    number, key = pa.decimal128(15, 2), pa.int64()
    types = dict.fromkeys(("l_orderkey", "l_partkey", "l_suppkey"), key) | {"l_linenumber": pa.int32()}
    types |= dict.fromkeys(("l_quantity", "l_extendedprice", "l_discount", "l_tax"), number)
    types |= dict.fromkeys(("l_returnflag", "l_linestatus"), pa.string())
    types |= dict.fromkeys(("l_shipdate", "l_commitdate", "l_receiptdate"), pa.date32())
    types |= dict.fromkeys(("l_shipinstruct", "l_shipmode", "l_comment"), pa.string())
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])
    names = ("l_orderkey", "l_quantity", "l_extendedprice")
    facts = {what: [0, *(decimal.Decimal(0) for _ in names)] for what in ("rows", "change", "merged")}

    def count(what, table):
        facts[what][0] += table.num_rows
        for at, name in enumerate(names, 1):
            facts[what][at] += pc.sum(table[name]).as_py() or 0

    with contextlib.ExitStack() as stack:
        writers = {}
        for end in ends:
            path = f"{prefix}{end}.part"
            kind = end.rpartition(".")[2]
            if kind == "parquet":
                writers[end] = stack.enter_context(pa.parquet.ParquetWriter(path, schema))
            elif kind == "csv":
                writers[end] = stack.enter_context(pa.csv.CSVWriter(path, schema, write_options=pa.csv.WriteOptions(quoting_style="needed")))
            else:
                writers[end] = stack.enter_context({"arrows": pa.ipc.new_stream, "arrow": pa.ipc.new_file}[kind](path, schema))

        waiting = {"": [], "-change": []}

        def put(which, table, least):
            """Writes in groups of rows, as files have them."""
            waiting[which].append(table)
            if sum(part.num_rows for part in waiting[which]) < least:
                return
            whole = pa.concat_tables(waiting[which]).combine_chunks()
            rest = whole.num_rows - whole.num_rows % least if least > 1 else whole.num_rows
            waiting[which], whole = [whole.slice(rest)], whole.slice(0, rest)
            for end, writer in writers.items():
                if end.startswith("-change") == bool(which):
                    if end.endswith(".parquet"):
                        writer.write_table(whole, row_group_size=122880)
                    elif end.endswith(".csv"):
                        writer.write_table(whole)
                    else:
                        writer.write_table(whole, max_chunksize=65536)

        options = pa.csv.ConvertOptions(column_types=types, strings_can_be_null=False)
        rows = pa.csv.open_csv(sys.stdin.buffer, read_options=pa.csv.ReadOptions(block_size=16 << 20), convert_options=options)
        first = 0
        for batch in rows:
            table = pa.Table.from_batches([batch]).cast(schema)
            place = pa.array(range(first, first + table.num_rows))
            first += table.num_rows

            def every(step, at, place=place):
                return pc.equal(pc.subtract(place, pc.multiply(pc.divide(place, step), step)), at)

            changed = table.filter(every(20, 0))
            more = pc.add(changed["l_quantity"], pa.scalar(1, number)).cast(number)
            new = table.filter(every(100, 7))
            new = new.set_column(0, schema.field("l_orderkey"), pc.add(new["l_orderkey"], 1_000_000_000))
            change = pa.concat_tables([changed.set_column(4, schema.field("l_quantity"), more), new]).cast(schema)
            count("rows", table)
            count("change", change)
            count("merged", table.filter(pc.invert(every(20, 0))))
            count("merged", change)
            put("", table, 983040)
            put("-change", change, 983040)
        put("", schema.empty_table(), 1)
        put("-change", schema.empty_table(), 1)
    import os

    for end in ends:
        os.rename(f"{prefix}{end}.part", f"{prefix}{end}")
    with open(f"{prefix}.json", "w", encoding="utf-8") as out:
        json.dump({what: [numbers[0], *map(str, numbers[1:])] for what, numbers in facts.items()}, out)


def events(rows, file, facts):
    """Nested NDJSON, wide: an event with a user, a device, sixteen measures, and lists of tags and items."""
    import os

    kinds, systems = ("view", "click", "cart", "order"), ("ios", "android", "linux", "windows", "macos")
    cities = ("Köln", "Łódź", "Bordeaux", "Turin", "Graz")
    count, sums = int(rows), [0] * 4
    with open(f"{file}.part", "w", encoding="utf-8", buffering=1 << 20) as out:
        for at in range(1, count + 1):
            mixed = at * 2654435761 % 4294967296
            user, width, seventh, quarters = mixed % 100_003, 320 + mixed % 2240, mixed % 1009, mixed % 40_000
            sums = [sums[0] + at, sums[1] + user, sums[2] + width, sums[3] + quarters]
            day, second = mixed % 28 + 1, at % 86400
            measures = ",".join(f'"m{one:02}":{(mixed >> one) % 1000}' if one % 2 else f'"m{one:02}":{(mixed >> one) % 1000 / 8}' for one in range(16))
            items = ",".join(f'{{"sku":"S{(mixed + one) % 5000:05}","price":{one + seventh / 4},"quantity":{one + 1}}}' for one in range(mixed % 3))
            out.write(
                f'{{"id":{at},"at":"2026-03-{day:02}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z","kind":"{kinds[mixed % 4]}",'
                f'"amount":{quarters / 4},"user":{{"id":{user},"name":"user {user}","address":{{"city":"{cities[mixed % 5]}","zip":"{mixed % 100000:05}",'
                f'"geo":{{"lat":{mixed % 180 - 90 + 0.5},"lon":{mixed % 360 - 180 + 0.25}}}}}}},"device":{{"os":"{systems[mixed % 5]}",'
                f'"version":"{mixed % 20}.{mixed % 7}","screen":{{"width":{width},"height":{width * 2}}}}},"measures":{{{measures}}},'
                f'"tags":["t{mixed % 31}","t{mixed % 17}"],"items":[{items}]}}\n'
            )
    os.rename(f"{file}.part", file)
    with open(facts, "w", encoding="utf-8") as out:
        json.dump([count, *sums[:3], str(sums[3] / 4)], out)


def sums(kind, place, columns):
    """Count and sums of Parquet or CSV files, a Delta table, or a table of a DuckDB file: by readers that are not Weir's."""
    what = ", ".join(["count(*)", *(f"sum({name})" for name in columns.split(",") if name)])
    if kind == "delta":
        from deltalake import DeltaTable, QueryBuilder

        found = QueryBuilder().register("t", DeltaTable(place)).execute(f"select {what} from t")
        row = [str(column[0].as_py()) for column in (found if hasattr(found, "columns") else found.read_all()).columns]
    else:
        import duckdb

        file, _, table = place.partition("#")
        database = duckdb.connect(file, read_only=True) if kind == "duckdb" else duckdb.connect()
        row = database.execute(f"select {what} from " + (table if kind == "duckdb" else f"read_{kind}('{place}')")).fetchone()
    print("facts", *row)


def duckdb(limit, folder, *statements):
    """Statements in a database in memory, held to a limit."""
    import duckdb as it

    database = it.connect()
    settings = [f"set memory_limit = '{limit}'", f"set temp_directory = '{folder}/tmp'", "set preserve_insertion_order = false"]
    for statement in [*settings, *statements]:
        database.execute(statement)


def polars(code):
    """An expression of Polars."""
    import datetime

    import polars as pl

    exec(code, {"pl": pl, "c": pl.col, "date": datetime.date})


def adbc(url, parquet):
    """Arrow batches from the Parquet file into a new table."""
    import adbc_driver_postgresql.dbapi
    import pyarrow as pa
    import pyarrow.parquet

    file = pa.parquet.ParquetFile(parquet)
    rows = pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(batch_size=65536))
    with adbc_driver_postgresql.dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("lineitem", rows, mode="create")
        connection.commit()


def dlt(url, parquet, folder):
    """Arrow batches from the Parquet file; files between dlt's steps are Parquet, which it loads through ADBC: its fast way."""
    import dlt as it
    import pyarrow as pa
    import pyarrow.parquet

    @it.resource(name="lineitem", write_disposition="append")
    def lineitem():
        yield from (pa.Table.from_batches([batch]) for batch in pa.parquet.ParquetFile(parquet).iter_batches(batch_size=122880))

    pipeline = it.pipeline("load", destination=it.destinations.postgres(url), dataset_name="public", pipelines_dir=folder)
    print(pipeline.run(lineitem(), loader_file_format="parquet"))


def connect(url, parquet):
    """clickhouse-connect's insert_arrow, a million rows at a time, in a database that is there."""
    import clickhouse_connect
    import pyarrow as pa
    import pyarrow.parquet

    place = urllib.parse.urlsplit(url)
    login = {"username": place.username, "password": place.password}
    client = clickhouse_connect.get_client(host=place.hostname, port=place.port, database="bench", **login)
    waiting, count = [], 0
    for batch in pa.parquet.ParquetFile(parquet).iter_batches(batch_size=122880):
        waiting.append(batch)
        count += batch.num_rows
        if count >= 1_000_000:
            client.insert_arrow("lineitem", pa.Table.from_batches(waiting))
            waiting, count = [], 0
    if waiting:
        client.insert_arrow("lineitem", pa.Table.from_batches(waiting))


def post(url, query, body, size):
    """One request to ClickHouse's HTTP interface."""
    import base64
    import http.client

    place = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname, place.port, blocksize=1 << 20)
    login = base64.b64encode(f"{place.username}:{place.password}".encode()).decode()
    query = urllib.parse.urlencode({"query": query, "database": "bench"})
    connection.request("POST", f"/?{query}", body=body, headers={"Authorization": f"Basic {login}", "Content-Length": str(size)})
    answer = connection.getresponse()
    text = answer.read().decode()
    if answer.status != 200:
        sys.exit(text)


def raw(url, arrows):
    """The bytes of the Arrow stream, sent as they are: what HTTP and the front cost where the client does nothing."""
    import os

    with open(arrows, "rb") as body:
        post(url, "insert into lineitem format ArrowStream", body, os.path.getsize(arrows))


def alone(folder, ddl, arrows):
    """An engine in a process of its own, reading the Arrow stream from disk; says how long the statement took, and what is there."""
    from chdb.session import Session

    session = Session(folder)
    session.query(ddl)
    started = time.monotonic()
    session.query(f"insert into lineitem select * from file('{arrows}', 'ArrowStream')")
    print(f"seconds {time.monotonic() - started:.3f}")
    sums = "select count(), sum(l_orderkey), sum(l_quantity), sum(l_extendedprice) from lineitem"
    print("facts", session.query(sums, "TabSeparated").bytes().decode())


def dlt_events(file, folder):
    """NDJSON to a Delta table in a folder: nested records become columns, lists stay as they are."""
    import dlt as it
    from dlt.sources.filesystem import filesystem, read_jsonl

    path, _, name = file.rpartition("/")
    rows = (filesystem(bucket_url=f"file://{path}", file_glob=name) | read_jsonl()).with_name("events")
    lists = {name: {"data_type": "json"} for name in ("tags", "items")}
    rows.apply_hints(table_format="delta", write_disposition="append", columns=lists)
    pipeline = it.pipeline("events", destination=it.destinations.filesystem(f"file://{folder}/out"), dataset_name="bench", pipelines_dir=f"{folder}/state")
    print(pipeline.run(rows))


def dlt_incremental(url, folder):
    """A table of Postgres, what has changed in it, merged into a Delta table in a folder."""
    import dlt as it
    from dlt.sources.sql_database import sql_table

    rows = sql_table(url, table="lines", schema="public", backend="pyarrow", incremental=it.sources.incremental("updated_at"))
    rows.apply_hints(
        table_format="delta", write_disposition={"disposition": "merge", "strategy": "upsert"}, primary_key=["l_orderkey", "l_linenumber"]
    )
    pipeline = it.pipeline("lines", destination=it.destinations.filesystem(f"file://{folder}/out"), dataset_name="bench", pipelines_dir=f"{folder}/state")
    print(pipeline.run(rows))


def dlt_few(file, folder):
    """A small CSV file to Parquet in a folder."""
    import dlt as it
    import pyarrow.csv

    pipeline = it.pipeline("few", destination=it.destinations.filesystem(f"file://{folder}/out"), dataset_name="bench", pipelines_dir=f"{folder}/state")
    print(pipeline.run(pyarrow.csv.read_csv(file), table_name="few", loader_file_format="parquet"))


def between(postgres, clickhouse):
    """ADBC reads the table as Arrow, clickhouse-connect inserts it, a million rows at a time."""
    import adbc_driver_postgresql.dbapi
    import clickhouse_connect
    import pyarrow as pa

    place = urllib.parse.urlsplit(clickhouse)
    login = {"username": place.username, "password": place.password}
    client = clickhouse_connect.get_client(host=place.hostname, port=place.port, database="bench", **login)
    names = "l_quantity", "l_extendedprice", "l_discount", "l_tax"
    # ADBC gives numerics as text of a type of its own.
    with adbc_driver_postgresql.dbapi.connect(postgres) as connection, connection.cursor() as cursor:
        cursor.execute("select * from lineitem")
        waiting, count = [], 0

        def insert():
            table = pa.Table.from_batches(waiting)
            for name in names:
                at = table.schema.get_field_index(name)
                text = table[name].cast(pa.string())
                table = table.set_column(at, name, text.cast(pa.decimal128(15, 2)))
            client.insert_arrow("lineitem", table)

        for batch in cursor.fetch_record_batch():
            waiting.append(batch)
            count += batch.num_rows
            if count >= 1_000_000:
                insert()
                waiting, count = [], 0
        if waiting:
            insert()


def statement(url, query):
    """One statement to ClickHouse, which does the work by itself; says how long it took."""
    started = time.monotonic()
    post(url, query, b"", 0)
    print(f"seconds {time.monotonic() - started:.3f}")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
