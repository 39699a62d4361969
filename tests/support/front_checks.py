"""Keeps the ClickHouse front honest: the official client through it, and HTTP by hand where no client goes: `front_checks.py URL`.

The same checks hold against a real server, given an empty database's URL with a user that may do everything.
"""

import http.client
import json
import socket
import struct
import sys
import threading
import time
import urllib.parse
import uuid

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.exceptions import DatabaseError

URL = urllib.parse.urlsplit(sys.argv[1])
USER = urllib.parse.unquote(URL.username or "default")
PASSWORD = urllib.parse.unquote(URL.password or "")
DATABASE = "front_" + uuid.uuid4().hex[:12]


def equal(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


def ask(statement=None, data=None, headers=(), method="POST", chunks=None, **parameters):
    """One request by hand: (status, headers, body)."""
    connection = http.client.HTTPConnection(URL.hostname, URL.port, timeout=60)
    given = {"X-ClickHouse-User": USER, "X-ClickHouse-Key": PASSWORD, **dict(headers)}
    pairs = {"database": DATABASE, **parameters}
    if statement is not None:
        pairs["query"] = statement
    try:
        connection.request(method, "/?" + urllib.parse.urlencode({key: value for key, value in pairs.items() if value is not None}),
                           body=chunks if chunks is not None else data, headers=given, encode_chunked=chunks is not None)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def rows(statement, **parameters):
    status, _, body = ask(data=statement.encode(), **parameters)
    assert status == 200, body
    return body.decode()


def client(**more):
    arguments = {"host": URL.hostname, "port": URL.port, "username": USER, "password": PASSWORD, "database": DATABASE, **more}
    return clickhouse_connect.get_client(**arguments)


# ---------------------------------------------------------------- the official client

def official_client_connects_inserts_and_reads():
    with client() as one:
        one.command("create table rows (id UInt64, name Nullable(String), at DateTime64(6, 'UTC'), amount Decimal(18, 2)) engine = MergeTree order by id")
        equal(one.command("select currentDatabase()"), DATABASE)
        import datetime
        import decimal

        at = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=datetime.timezone.utc)
        written = one.insert("rows", [[1, "o'né\\\t\n", at, decimal.Decimal("-1.50")], [2, None, at, decimal.Decimal("0.01")]],
                             column_names=["id", "name", "at", "amount"])
        equal(written.written_rows, 2)
        table = pa.table({"id": pa.array(range(3, 100_003), pa.uint64()), "name": pa.array([f"name {n}" for n in range(100_000)]),
                          "at": pa.array([at] * 100_000, pa.timestamp("us", "UTC")),
                          "amount": pa.array([decimal.Decimal("2.25")] * 100_000, pa.decimal128(18, 2))})
        one.insert_arrow("rows", table)
        equal(one.query("select count(), sum(id) from rows").result_rows, [(100_002, 100_002 * 100_003 // 2)])
        equal(one.query("select * from rows where id < 3 order by id").result_rows[0][1], "o'né\\\t\n")
        equal(one.query_arrow("select id, name from rows order by id").num_rows, 100_002)
        total = 0
        with one.query_row_block_stream("select id from rows order by id", settings={"max_block_size": 1000}) as stream:
            for block in stream:
                total += len(block)
        equal(total, 100_002)


def official_client_compresses():
    for method in ("lz4", "zstd", "gzip"):
        with client(compress=method) as one:
            one.command("create or replace table packed (id UInt64, text String) engine = MergeTree order by id")
            one.insert("packed", [[n, "x" * 50] for n in range(20_000)], column_names=["id", "text"])
            equal(one.query("select count(), max(length(text)) from packed").result_rows, [(20_000, 50)])
            equal(len(one.query("select * from packed").result_rows), 20_000)


def official_client_binds_parameters():
    with client() as one:
        equal(one.query("select {a:UInt64} + 1, {s:String}, {l:Array(String)}", parameters={"a": 41, "s": "it's \\ a\ttab", "l": ["x", "y'"]}).result_rows,
              [(42, "it's \\ a\ttab", ["x", "y'"])])


def official_client_is_told_of_errors():
    with client() as one:
        for statement, words in (("select * from no_such_table", "UNKNOWN_TABLE"), ("selec 1", "SYNTAX_ERROR"),
                                 ("select throwIf(number = 3) from numbers(10)", "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO")):
            try:
                one.query(statement)
            except DatabaseError as error:
                assert words in str(error), error
            else:
                raise AssertionError(f"{statement} did not fail")
    for wrong in ({"password": "wrong"}, {"username": "nobody_like_this"}):
        try:
            client(**wrong)
        except DatabaseError as error:
            assert "516" in str(error) and "Authentication failed" in str(error), error
        else:
            raise AssertionError("a wrong password was taken")


# ---------------------------------------------------------------- where statements, data and credentials stand

def ping_needs_no_password():
    connection = http.client.HTTPConnection(URL.hostname, URL.port, timeout=10)
    for _ in range(2):  # on one connection
        connection.request("GET", "/ping")
        answer = connection.getresponse()
        equal((answer.status, answer.read()), (200, b"Ok.\n"))


def statements_stand_in_the_url_the_body_or_both():
    rows("create table places (n UInt64, s String) engine = MergeTree order by n")
    equal(ask("select 1")[2], b"1\n")
    equal(ask(data=b"select 2")[2], b"2\n")
    equal(ask("select 3 +", data=b"4")[2], b"7\n")
    equal(ask("insert into places values", data=b"(1, 'a')")[0], 200)
    equal(ask("insert into places (n, s) values (2, 'b')", data=b"")[0], 200)
    equal(ask(data=b"insert into places format CSV\n3,c\n")[0], 200)
    equal(ask("insert into places format JSONEachRow", chunks=[b'{"n": 4,', b' "s": "d"}'])[0], 200)
    binary = struct.pack("<Q", 5) + b"\x07e\n; --\n"
    equal(ask(data=b"insert into places format RowBinary\n" + binary)[0], 200)
    equal(ask("insert into places select n + 10, s from places where n = 1")[0], 200)
    equal(rows("select * from places order by n format CSV"), '1,"a"\n2,"b"\n3,"c"\n4,"d"\n5,"e\n; --\n"\n11,"a"\n')
    equal(rows("select count() from places", default_format="CSV"), "6\n")
    equal(rows("select 'format CSV' as x -- a comment; and more\n settings max_threads = 1;"), "format CSV\n")
    equal(rows("select 1 as a format TSVWithNames settings max_threads = 1"), "a\n1\n")
    status, _, body = ask(data=b"select 1; select 2")
    assert status == 400 and b"Multi-statements" in body, body


def parameters_are_settings_except_those_of_http():
    equal(rows("select getSetting('max_block_size')", max_block_size="77", wait_end_of_query="1", buffer_size="1000", session_id=uuid.uuid4().hex), "77\n")
    status, headers, body = ask("select 1", no_such_setting="1")
    equal((status, headers["X-ClickHouse-Exception-Code"]), (404, "115"))
    assert b"UNKNOWN_SETTING" in body, body
    equal(ask("select currentDatabase()", database="no_such_database")[1]["X-ClickHouse-Exception-Code"], "81")
    equal(rows("select {n:UInt8} + 1, {t:String}", param_n="4", param_t="tab\\tquote'"), "5\ttab\\tquote\\'\n")
    boundary = "b0undary"
    parts = [("query", "select {n:UInt8} + 1, {t:String}"), ("param_n", "7"), ("param_t", "x")]
    body = "".join(f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n' for key, value in parts) + f"--{boundary}--\r\n"
    equal(ask(data=body.encode(), headers={"Content-Type": f"multipart/form-data; boundary={boundary}"})[2], b"8\tx\n")


def get_changes_nothing():
    rows("create table kept (n UInt64) engine = MergeTree order by n")
    for statement in ("insert into kept values (1)", "drop table kept", "insert into kept select 1"):
        status, headers, _ = ask(statement, method="GET")
        equal((status, headers["X-ClickHouse-Exception-Code"]), (500, "164"))
    equal(ask("select count() from kept", method="GET")[2], b"0\n")


def credentials_stand_in_headers_basic_or_the_url():
    import base64

    none = {"X-ClickHouse-User": "", "X-ClickHouse-Key": ""}
    connection = http.client.HTTPConnection(URL.hostname, URL.port, timeout=10)
    basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    for path, headers, expected in (
        ("/?query=select+1", {"Authorization": f"Basic {basic}"}, 200),
        ("/?" + urllib.parse.urlencode({"query": "select 1", "user": USER, "password": PASSWORD}), {}, 200),
        ("/?query=select+1", {"X-ClickHouse-User": USER, "X-ClickHouse-Key": PASSWORD + "x"}, 403),
        ("/?query=select+1", {"X-ClickHouse-User": "nobody_like_this"}, 403),
    ):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        equal(answer.status, expected)
        if expected == 403:
            equal(answer.headers["X-ClickHouse-Exception-Code"], "516")
    del none


# ---------------------------------------------------------------- bodies and results

def compressed_blocks_and_bodies_are_read():
    import gzip

    import lz4.block

    rows("create table blocks (n UInt64) engine = MergeTree order by n")
    plain = b"".join(struct.pack("<Q", n) for n in range(200_000))
    packed = b""
    for at in range(0, len(plain), 65_536):
        piece = plain[at:at + 65_536]
        data = lz4.block.compress(piece, store_size=False)
        packed += b"\0" * 16 + struct.pack("<BII", 0x82, len(data) + 9, len(piece)) + data
    if "real" not in sys.argv:  # a real server checks the checksums
        equal(ask("insert into blocks format RowBinary", data=packed, decompress="1")[0], 200)
        equal(rows("select count(), sum(n) from blocks"), f"200000\t{199_999 * 200_000 // 2}\n")
        assert ask("insert into blocks format RowBinary", data=packed[:-10], decompress="1")[0] != 200
    equal(ask("insert into blocks format RowBinary", data=gzip.compress(plain[:80]), headers={"Content-Encoding": "gzip"})[0], 200)
    status, _, body = ask("insert into blocks format RowBinary", data=gzip.compress(plain, 1)[:-100], headers={"Content-Encoding": "gzip"})
    assert status != 200, body


def a_body_cut_off_inserts_nothing():
    rows("create table cut (n UInt64) engine = MergeTree order by n")
    data = b"".join(struct.pack("<Q", n) for n in range(1000))
    for into in ("cut", "cut+(n)"):
        head = (f"POST /?database={DATABASE}&query=insert+into+{into}+format+RowBinary HTTP/1.1\r\nHost: x\r\nX-ClickHouse-User: {USER}\r\n"
                f"X-ClickHouse-Key: {PASSWORD}\r\n").encode()
        for framing, body in ((b"Content-Length: 9000\r\n\r\n", data), (b"Content-Length: 9000000\r\n\r\n", data * 1000),
                              (b"Transfer-Encoding: chunked\r\n\r\n", b"1f40\r\n" + data + b"\r\n"),
                              (b"Transfer-Encoding: chunked\r\n\r\n", b"2000\r\n" + data)):
            with socket.create_connection((URL.hostname, URL.port)) as raw:
                raw.sendall(head + framing + body)
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(65536):
                    pass
    until = time.monotonic() + 10
    while rows("select count() from system.processes where query like 'insert into cut%'") != "0\n":
        assert time.monotonic() < until, "an insert whose client is gone runs on"
        time.sleep(0.05)
    equal(rows("select count() from cut"), "0\n")


def large_results_stream_and_fail_in_the_middle():
    status, headers, body = ask("select number from numbers(3000000) format RowBinary")
    equal((status, len(body), headers["Transfer-Encoding"]), (200, 24_000_000, "chunked"))
    try:
        status, headers, body = ask("select throwIf(number = 2900000), number from numbers(3000000) settings max_threads = 1, max_block_size = 1000 format RowBinary")
    except http.client.IncompleteRead as error:
        assert b"FUNCTION_THROW_IF_VALUE_IS_NON_ZERO" in error.partial[-4000:], error.partial[-4000:]
    else:
        raise AssertionError(f"the result of a failed query looks whole: {status}, {len(body)} bytes")
    status, headers, _ = ask("select throwIf(number = 2900000), number from numbers(3000000) format RowBinary", wait_end_of_query="1")
    equal((status, headers["X-ClickHouse-Exception-Code"]), (500, "395"))


def a_client_that_goes_away_ends_its_query():
    query_id = uuid.uuid4().hex
    with socket.create_connection((URL.hostname, URL.port)) as raw:
        raw.sendall((f"GET /?query_id={query_id}&query=select+number+from+numbers(100000000000) HTTP/1.1\r\nHost: x\r\nX-ClickHouse-User: {USER}\r\n"
                     f"X-ClickHouse-Key: {PASSWORD}\r\n\r\n").encode())
        assert raw.recv(1000).startswith(b"HTTP/1.1 200"), "no answer"
    until = time.monotonic() + 20
    while rows(f"select count() from system.processes where query_id = '{query_id}'") != "0\n":
        assert time.monotonic() < until, "the query runs on"
        time.sleep(0.05)


# ---------------------------------------------------------------- what runs

class Slow(threading.Thread):
    """A statement that takes ten seconds unless it is killed."""

    def __init__(self, query_id):
        super().__init__(daemon=True)
        self.query_id, self.answer = query_id, None
        self.start()
        until = time.monotonic() + 10
        while rows("select count() from system.processes where query_id = {id:String}", param_id=query_id) != "1\n":
            assert time.monotonic() < until, "it does not run"
            time.sleep(0.01)

    def run(self):
        self.answer = ask("select sleepEachRow(0.1) from numbers(100) settings max_block_size = 1, function_sleep_max_microseconds_per_block = 60000000", query_id=self.query_id)


def statements_run_side_by_side_and_an_id_runs_once():
    query_id = "weir " + uuid.uuid4().hex
    slow = Slow(query_id)
    equal(rows("select 1"), "1\n")
    status, headers, body = ask("select 1", query_id=query_id)
    equal((status, headers["X-ClickHouse-Exception-Code"]), (500, "216"))
    equal(ask("kill query where query_id = '{}' sync".format(query_id))[0], 200)
    slow.join(10)
    equal(slow.answer[1].get("X-ClickHouse-Exception-Code"), "394")
    equal(rows("select count() from system.processes where query_id = '{}'".format(query_id)), "0\n")
    status, headers, _ = ask("select 1", query_id=query_id)
    equal((status, headers["X-ClickHouse-Query-Id"]), (200, query_id))


def an_insert_that_waits_for_data_is_killed():
    rows("create table waits (n UInt64) engine = MergeTree order by n")
    for into in ("waits", "waits+(n)"):
        query_id = uuid.uuid4().hex
        with socket.create_connection((URL.hostname, URL.port), timeout=20) as raw:
            raw.sendall((f"POST /?database={DATABASE}&query_id={query_id}&query=insert+into+{into}+format+CSV HTTP/1.1\r\nHost: x\r\n"
                         f"X-ClickHouse-User: {USER}\r\nX-ClickHouse-Key: {PASSWORD}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n1\n\r\n").encode())
            until = time.monotonic() + 10
            while rows(f"select count() from system.processes where query_id = '{query_id}'") != "1\n":
                assert time.monotonic() < until, "the insert does not show"
                time.sleep(0.01)
            equal(ask(f"kill query where query_id = '{query_id}' async")[0], 200)
            time.sleep(0.2)
            raw.sendall(b"2\r\n2\n\r\n0\r\n\r\n")
            assert b"QUERY_WAS_CANCELLED" in raw.recv(100_000), "a killed insert succeeded"
    equal(rows("select count() from waits"), "0\n")


def summaries_count_written_rows():
    rows("create table counted (n UInt64) engine = MergeTree order by n")
    _, headers, _ = ask("insert into counted format CSV", data=b"1\n2\n3\n")
    equal(json.loads(headers["X-ClickHouse-Summary"])["written_rows"], "3")


def an_insert_that_the_table_refuses_fails():
    rows("create table strict (n Int64, constraint positive check n > 0) engine = MergeTree order by n")
    rows("create table full (n Int64) engine = MergeTree order by n settings min_free_disk_bytes_to_perform_insert = 1000000000000000000")
    for statement, data, code in (("insert into strict format CSV", b"1\n-1\n", "469"), ("insert into strict values (2), (-2)", None, "469"),
                                  ("insert into strict (n) format CSV", b"1\n-1\n", "469"), ("insert into strict (n) format CSV", b"1\nx\n", "117"),
                                  ("insert into full format CSV", b"1\n", "243"), ("insert into full values (1)", None, "243"),
                                  ("insert into full (n) values (1)", None, "243")):
        status, headers, body = ask(statement, data=data) if data else ask(data=statement.encode())
        equal((status, headers.get("X-ClickHouse-Exception-Code")), (400 if code == "117" else 500, code))
        assert body.startswith(f"Code: {code}. DB::Exception: ".encode()) and body.count(b"DB::Exception") == 1 and b"/proc/" not in body, body
    equal(rows("select count() from strict") + rows("select count() from full"), "0\n0\n")
    rows("insert into strict values (1 + 2), (3)")


def inserts_that_fail_side_by_side_all_fail():
    told = []

    def fail(table):
        for _ in range(10):
            told.append(ask(f"insert into {table} (n) format CSV", data=b"1\n-1\n")[1].get("X-ClickHouse-Exception-Code"))

    tables = [f"strict_{number}" for number in range(4)]
    for table in tables:
        rows(f"create table {table} (n Int64, constraint positive check n > 0) engine = MergeTree order by n")
    threads = [threading.Thread(target=fail, args=(table,)) for table in tables]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(told, ["469"] * 40)


def columns_named_or_not_make_the_same_parts():
    data = b"".join(struct.pack("<Q", n) for n in range(250_000))
    found = []
    for table, into in (("unnamed", "unnamed"), ("named", "named (n)")):
        rows(f"create table {table} (n UInt64) engine = MergeTree order by n")
        rows(f"system stop merges {table}")
        for settings in ({}, {"max_insert_block_size": 100_000, "min_insert_block_size_rows": 0, "min_insert_block_size_bytes": 0}):
            equal(ask(f"insert into {into} format RowBinary", data=data, **settings)[0], 200)
        found.append(rows(f"select groupArray(rows) from (select rows from system.parts where database = currentDatabase() and table = '{table}' order by rows)"))
    equal(found[0], found[1])


def a_connection_goes_on_after_a_refused_insert():
    rows("create table refuses (n UInt64) engine = MergeTree order by n")
    connection = http.client.HTTPConnection(URL.hostname, URL.port, timeout=60)
    headers = {"X-ClickHouse-User": USER, "X-ClickHouse-Key": PASSWORD}
    for into in ("refuses", "refuses (n)", "no_such_table", "no_such_table (n)"):
        for lines in (1, 50_000):
            for statement, data, good in ((f"insert into {into} format CSV", b"1,x\n" * lines, False), ("select 1", b"", True)):
                connection.request("POST", "/?" + urllib.parse.urlencode({"database": DATABASE, "query": statement}), body=data, headers=headers)
                answer = connection.getresponse()
                equal((answer.read() == b"1\n", answer.status == 200), (good, good))
    connection.close()


def main():
    checks = [value for name, value in list(globals().items()) if callable(value) and getattr(value, "__module__", "") == "__main__"
              and "_" in name and name not in ("main",)]
    ask(f"create database {DATABASE}", database=None)
    try:
        for check in checks:
            since = time.monotonic()
            check()
            print(f"{check.__name__}: {time.monotonic() - since:.2f} s", flush=True)
    finally:
        ask(f"drop database if exists {DATABASE} sync", database=None)


main()
