"""What `benches/load` runs in the peers' own Python: peers.py PROGRAM ARGUMENTS. Makes the data too.

Each program is what its documentation shows for this job, and no more.
"""

import json
import sys
import time
import urllib.parse


def data(csv, prefix):
    """Rows in the formats that the programs read, and a change of them: 5 % with other values and 1 % new."""
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
    options = pa.csv.ConvertOptions(column_types=types, strings_can_be_null=False)
    rows = pa.csv.read_csv(csv, read_options=pa.csv.ReadOptions(block_size=32 << 20), convert_options=options).cast(schema)

    def facts(table):
        return [table.num_rows, *(str(pc.sum(table[name]).as_py()) for name in ("l_orderkey", "l_quantity", "l_extendedprice"))]

    def put(table, prefix):
        pa.parquet.write_table(table, f"{prefix}.parquet", row_group_size=122880)
        for end, make in (("arrows", pa.ipc.new_stream), ("arrow", pa.ipc.new_file)):
            with make(f"{prefix}.{end}", schema) as out:
                out.write_table(table.combine_chunks(), max_chunksize=65536)

    put(rows, prefix)
    place = pa.array(range(rows.num_rows))

    def every(step, first):
        return pc.equal(pc.subtract(place, pc.multiply(pc.divide(place, step), step)), first)

    changed = rows.filter(every(20, 0))
    changed = changed.set_column(4, schema.field("l_quantity"), pc.add(changed["l_quantity"], pa.scalar(1, number)).cast(number))
    new = rows.filter(every(100, 7))
    new = new.set_column(0, schema.field("l_orderkey"), pc.add(new["l_orderkey"], 1_000_000_000))
    change = pa.concat_tables([changed, new]).cast(schema)
    put(change, f"{prefix}-change")
    pa.csv.write_csv(change, f"{prefix}-change.csv", pa.csv.WriteOptions(quoting_style="needed"))
    merged = pa.concat_tables([rows.filter(pc.invert(every(20, 0))), change])
    with open(f"{prefix}.json", "w", encoding="utf-8") as out:
        # Last: where this file is, the others are.
        json.dump({"rows": facts(rows), "change": facts(change), "merged": facts(merged)}, out)


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


def engine(url, arrows):
    """The engine that the other programs load, reading the Arrow stream from disk by itself; says how long the statement took."""
    started = time.monotonic()
    post(url, f"insert into lineitem select * from file('{arrows}', 'ArrowStream')", b"", 0)
    print(f"seconds {time.monotonic() - started:.3f}")


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


if __name__ == "__main__":
    {made.__name__: made for made in (data, adbc, dlt, connect, raw, engine, alone)}[sys.argv[1]](*sys.argv[2:])
