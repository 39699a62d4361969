"""Clients of a `weir serve` that are not ours, waiting for questions: psycopg, ADBC and pyarrow's Flight, HTTP by hand, and the command itself.

  doors.py CONFIG       CONFIG is JSON: {"users": {NAME: TOKEN}, "http": ADDRESS, "postgres": ADDRESS, "flight": ADDRESS, "weir": PROGRAM, "root": FOLDER}

Each line of standard input is a request, each line of standard output its answer. A request has a `door` and `sql`, perhaps `parameters`, `user`,
`database` (of Postgres) and `seconds`; its answer has `columns` and `rows`, or an `error`. Or it has an `op`, which is a function here whose name ends in `_op`.

Rows are in one normal form, whichever door they come through: a value is the text of what it is (numbers digit by digit, floats as the shortest text
that reads back the same, instants in UTC to the microsecond, bytes in hexadecimal), nulls are null, lists are lists.
"""

import datetime
import decimal
import http.client as http_client
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import uuid

import pyarrow as pa
import pyarrow.flight as flight
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

CONFIG = {}
OPEN = {}


# ---------------------------------------------------------------- one normal form

def short32(value):
    """The shortest text of a 32-bit float that reads back the same."""
    if value != value or value in (float("inf"), float("-inf")):
        return value
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if struct.unpack("f", struct.pack("f", float(text)))[0] == value:
            return float(text)
    return value


def normal(value):
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return "0.0" if value == 0 and str(value) == "0.0" else repr(value)
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "\\x" + bytes(value).hex()
    if isinstance(value, datetime.datetime):
        if value.tzinfo:
            return value.astimezone(datetime.timezone.utc).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
        return value.isoformat(timespec="microseconds")
    if isinstance(value, datetime.time):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return f"{value // datetime.timedelta(microseconds=1)} us"
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [normal(item) for item in value]
    if isinstance(value, dict):
        return {key: normal(item) for key, item in value.items()}
    return str(value)


def narrow(type):
    """A type without what Python's values cannot say: nanoseconds, which no query here has, and 32-bit floats, which are told apart by the caller."""
    if pa.types.is_timestamp(type):
        return pa.timestamp("us", type.tz)
    if pa.types.is_time(type):
        return pa.time64("us")
    return type


def arrow_rows(table):
    columns = []
    for column in table.columns:
        column = column.cast(narrow(column.type))
        values = column.to_pylist()
        if pa.types.is_float32(column.type) or pa.types.is_float16(column.type):
            values = [None if value is None else short32(value) for value in values]
        columns.append([normal(value) for value in values])
    return {"columns": table.column_names, "rows": [list(row) for row in zip(*columns)] if columns else []}


# ---------------------------------------------------------------- the doors

def token_of(request):
    user = request.get("user", "ann")
    return user, CONFIG["users"].get(user, "weir_" + "0" * 64)


def prompt(request):
    assert not request.get("parameters"), "the prompt has no parameters"
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "rows.parquet")
        command = [CONFIG["weir"], "sql", "-c", request["sql"], "-o", path]
        done = subprocess.run(command, cwd=CONFIG["root"], capture_output=True, text=True, timeout=request.get("seconds", 120),
                              env={"PATH": os.environ["PATH"], "HOME": CONFIG["root"], "TZ": "UTC", "LANG": "C.UTF-8", "NO_COLOR": "1"})
        if done.returncode:
            code = re.search(r"error\[([a-z0-9-]+)\]", done.stderr)
            return {"error": {"code": code and code[1], "text": done.stderr}}
        return arrow_rows(pq.read_table(path))


def postgres(request):
    import psycopg
    user, token = token_of(request)
    database = request.get("database", "lake")
    key = ("postgres", user, database)
    try:
        if key not in OPEN or OPEN[key].closed:
            host, port = CONFIG["postgres"].rsplit(":", 1)
            OPEN[key] = psycopg.connect(host=host, port=port, user=user, password=token, dbname=database, autocommit=True, connect_timeout=20,
                                        cursor_factory=psycopg.RawCursor, sslmode="disable")
        cursor = OPEN[key].cursor()
        cursor.execute(request["sql"], request.get("parameters") or None)
        if cursor.description is None:
            return {"columns": [], "rows": [], "status": cursor.statusmessage}
        singles = [column.type_code == 700 for column in cursor.description]
        rows = [[normal(short32(value) if single and value is not None else value) for value, single in zip(row, singles)] for row in cursor.fetchall()]
        return {"columns": [column.name for column in cursor.description], "rows": rows}
    except psycopg.Error as error:
        said = error.diag
        ours = re.search(r"code: ([a-z0-9-]+)", said.message_detail or "")
        return {"error": {"code": ours[1] if ours else error.sqlstate, "sqlstate": error.sqlstate, "text": said.message_primary or str(error),
                          "hint": said.message_hint}}


def ask_http(request, accept):
    _, token = token_of(request)
    body = {"sql": request["sql"]}
    if request.get("parameters"):
        body["parameters"] = request["parameters"]
    headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json", "Accept": accept}
    asked = urllib.request.Request(f"http://{CONFIG['http']}/api/sql", json.dumps(body).encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(asked, timeout=request.get("seconds", 120)) as answer:
            return answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        said = json.loads(error.read())["error"]
        raise Refused({"code": said["code"], "text": said["message"], "status": error.code}) from None


class Refused(Exception):
    """What a server answers in the place of rows."""


def http(request):
    body, _ = ask_http(request, "application/vnd.apache.arrow.stream")
    try:
        with ipc.open_stream(body) as reader:
            return arrow_rows(reader.read_all())
    except pa.ArrowInvalid as error:
        # An answer that broke off after its first byte.
        raise Refused({"code": "broken-off", "text": str(error)}) from None


def http_json(request):
    body, _ = ask_http(request, "application/json")
    return {"json": json.loads(body)}


def adbc(user, token):
    import adbc_driver_flightsql.dbapi as dbapi
    key = ("flight", user)
    if key not in OPEN:
        OPEN[key] = dbapi.connect("grpc://" + CONFIG["flight"], db_kwargs={"username": user, "password": token}, autocommit=True)
    return OPEN[key]


def weir_code(text):
    """Our own code, with which the message of a status begins."""
    found = re.search(r"error\[([a-z0-9-]+)\]: ", text)
    return found and found[1]


def flight_door(request):
    import adbc_driver_manager
    user, token = token_of(request)
    try:
        with adbc(user, token).cursor() as cursor:
            cursor.execute(request["sql"], request.get("parameters"))
            return arrow_rows(cursor.fetch_arrow_table())
    except adbc_driver_manager.Error as error:
        text = str(error)
        return {"error": {"code": weir_code(text), "grpc": error.status_code.name, "text": text}}


DOORS = {"prompt": prompt, "postgres": postgres, "http": http, "json": http_json, "flight": flight_door}


# ---------------------------------------------------------------- Flight SQL, message by message

def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def field(number, data):
    data = data.encode() if isinstance(data, str) else data
    return varint(number << 3 | 2) + varint(len(data)) + data


def any_of(name, body):
    return field(1, "type.googleapis.com/arrow.flight.protocol.sql." + name) + field(2, body)


def fields(data):
    """The fields of a message that has only texts and bytes."""
    found, at = {}, 0
    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            found[tag >> 3] = number()
            continue
        length = number()
        found[tag >> 3] = data[at:at + length]
        at += length
    return found


def raw(request):
    """A client of pyarrow's own, and what it calls with."""
    if "raw" not in OPEN:
        OPEN["raw"] = flight.connect("grpc://" + CONFIG["flight"])
    header = request.get("authorization", "Bearer " + token_of(request)[1])
    return OPEN["raw"], flight.FlightCallOptions(timeout=request.get("seconds", 60), headers=[(b"authorization", header.encode())] if header else [])


def command_of(request):
    if "handle" in request:
        return any_of("CommandPreparedStatementQuery", field(1, bytes.fromhex(request["handle"])))
    return any_of(request.get("command", "CommandStatementQuery"), bytes.fromhex(request["body"]) if "body" in request else field(1, request["sql"]))


def info_op(request):
    """GetFlightInfo: the ticket, and the columns as they are promised."""
    client, options = raw(request)
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command_of(request)), options)
    OPEN["info"] = info
    try:
        columns = [[one.name, str(one.type)] for one in info.schema]
    except (pa.ArrowException, ValueError, AttributeError, TypeError):
        columns = None
    return {"ticket": info.endpoints[0].ticket.ticket.hex(), "columns": columns}


def get_op(request):
    """DoGet of a ticket, or of a prepared statement."""
    client, options = raw(request)
    ticket = bytes.fromhex(request["ticket"]) if "ticket" in request else command_of(request)
    reader = client.do_get(flight.Ticket(ticket), options)
    sizes, batches = [], []
    for chunk in reader:
        batches.append(chunk.data)
        sizes.append(chunk.data.nbytes)
        if request.get("batches") and len(batches) >= request["batches"]:
            reader.cancel()
            return {"batches": len(batches)}
    table = pa.Table.from_batches(batches, reader.schema)
    if request.get("write"):
        with ipc.new_file(request["write"], table.schema) as writer:
            writer.write_table(table)
        return {"rows": table.num_rows, "sizes": sizes, "types": [str(one.type) for one in table.schema]}
    return arrow_rows(table) | {"sizes": sizes, "types": [str(one.type) for one in table.schema]}


def schema_op(request):
    """GetSchema: nothing is executed."""
    client, options = raw(request)
    schema = client.get_schema(flight.FlightDescriptor.for_command(command_of(request)), options).schema
    return {"columns": [[one.name, str(one.type)] for one in schema]}


def act_op(request):
    """Any action."""
    client, options = raw(request)
    results = client.do_action(flight.Action(request["type"], bytes.fromhex(request.get("body", ""))), options)
    return {"results": [result.body.to_pybytes().hex() for result in results]}


def prepare_op(request):
    """CreatePreparedStatement: its handle, and the types of what it takes and gives."""
    client, options = raw(request)
    body = any_of("ActionCreatePreparedStatementRequest", field(1, request["sql"]))
    result = next(iter(client.do_action(flight.Action("CreatePreparedStatement", body), options))).body.to_pybytes()
    parts = fields(fields(result)[2])
    def types(data):
        return [[one.name, str(one.type)] for one in ipc.read_schema(pa.py_buffer(data))] if data else None
    return {"handle": parts[1].hex(), "columns": types(parts.get(2)), "parameters": types(parts.get(3))}


def close_op(request):
    client, options = raw(request)
    body = any_of("ActionClosePreparedStatementRequest", field(1, bytes.fromhex(request["handle"])))
    return {"results": len(list(client.do_action(flight.Action("ClosePreparedStatement", body), options)))}


def bind_op(request):
    """DoPut of rows to a prepared statement: `rows` is a list of rows."""
    client, options = raw(request)
    rows = request["rows"]
    columns = [pa.array([row[at] for row in rows]) for at in range(len(rows[0]) if rows else 0)]
    batch = pa.record_batch(columns, names=[str(at) for at in range(len(columns))])
    writer, reader = client.do_put(flight.FlightDescriptor.for_command(command_of(request)), batch.schema, options)
    writer.write_batch(batch)
    writer.done_writing()
    result = reader.read()
    writer.close()
    return {"handle": fields(result.to_pybytes())[1].hex()}


def put_op(request):
    """DoPut of something else."""
    client, options = raw(request)
    schema = pa.schema([("id", pa.int64())])
    command = any_of(request["command"], bytes.fromhex(request["body"]) if "body" in request else field(1, request["sql"]))
    writer, reader = client.do_put(flight.FlightDescriptor.for_command(command), schema, options)
    writer.write_batch(pa.record_batch([pa.array([1])], schema))
    writer.done_writing()
    result = reader.read()
    writer.close()
    return {"result": result.to_pybytes().hex() if result else None}


def cancel(request, info):
    client, options = raw(request)
    results = client.do_action(flight.Action("CancelFlightInfo", field(1, info.serialize())), options)
    return {1: "CANCELLED", 2: "CANCELLING", 3: "NOT_CANCELLABLE"}[fields(next(iter(results)).body.to_pybytes())[1]]


def cancel_op(request):
    """CancelFlightInfo of what was asked for last."""
    return {"status": cancel(request, OPEN["info"])}


def cancelled_op(request):
    """Starts to read an endless answer, cancels it from beside, and reads on to its end."""
    client, options = raw(request)
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command_of(request)), options)
    reader = client.do_get(info.endpoints[0].ticket, options)
    first = reader.read_chunk().data.num_rows
    status = cancel(request, info)
    rows = first
    try:
        for chunk in reader:
            rows += chunk.data.num_rows
    except (pa.ArrowException, pa.lib.ArrowCancelled) as error:
        return {"status": status, "first": first, "ended": type(error).__name__, "text": str(error).splitlines()[0]}
    return {"status": status, "first": first, "ended": "as if it were whole"}


def handshake_op(request):
    """A handshake with user and password, as pyarrow makes it: the header that comes of it."""
    client, _ = raw(request)
    name, value = client.authenticate_basic_token(request["name"], request["password"])
    return {"name": name.decode(), "value": value.decode()}


def strangers_op(request):
    """Calls without a token whose messages do not end, over one connection: how many are answered all the same, and how many it may have at once."""
    import socket

    def frame(kind, flags, stream, body=b""):
        return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body

    def header(name, value):
        return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

    headers = {":method": "POST", ":scheme": "http", ":path": "/arrow.flight.protocol.FlightService/GetFlightInfo", ":authority": "weir",
               "content-type": "application/grpc", "te": "trailers"}
    headers = b"".join(header(name, value) for name, value in headers.items())
    begun = b"\0" + struct.pack("!I", 3 << 20) + b"x" * 1000
    streams = range(1, 2 * request["calls"], 2)
    host, port = CONFIG["flight"].rsplit(":", 1)
    answered, most, data = set(), None, b""
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
        for stream in streams:
            connection.sendall(frame(1, 4, stream, headers) + frame(0, 0, stream, begun))
        try:
            while len(answered) < len(streams) and (chunk := connection.recv(65536)):
                data += chunk
                while len(data) >= 9 and len(data) >= 9 + (length := int.from_bytes(data[:3], "big")):
                    kind, flags, stream, body = data[3], data[4], int.from_bytes(data[5:9], "big"), data[9:9 + length]
                    data = data[9 + length:]
                    if kind in (0, 1) and flags & 1:
                        answered.add(stream)
                    if kind == 4:
                        settings = dict(struct.iter_unpack("!HI", body))
                        most = settings.get(3, most)
        except OSError:
            pass
    return {"answered": len(answered), "most": most}


def adbc_objects_op(request):
    """AdbcConnection.get_objects."""
    user, token = token_of(request)
    depth = request.get("depth", "all")
    filters = {key + "_filter": request[key] for key in ("catalog", "db_schema", "table_name") if key in request}
    found = []
    for catalog in adbc(user, token).adbc_get_objects(depth=depth, **filters).read_all().to_pylist():
        for schema in catalog["catalog_db_schemas"] or []:
            for table in schema["db_schema_tables"] or []:
                columns = [[column["column_name"], column["ordinal_position"]] for column in table["table_columns"] or []]
                found.append([catalog["catalog_name"], schema["db_schema_name"], table["table_name"], table["table_type"], columns])
            if schema["db_schema_tables"] is None:
                found.append([catalog["catalog_name"], schema["db_schema_name"]])
        if catalog["catalog_db_schemas"] is None:
            found.append([catalog["catalog_name"]])
    return {"objects": found}


def adbc_about_op(request):
    """What ADBC learns of a server and a table."""
    user, token = token_of(request)
    connection = adbc(user, token)
    info = {str(key): value if isinstance(value, (str, bool, int)) else str(value) for key, value in connection.adbc_get_info().items()}
    schema = connection.adbc_get_table_schema(request["table"], catalog_filter=request["catalog"], db_schema_filter=request["schema"])
    return {"info": info, "types": connection.adbc_get_table_types(), "columns": [[one.name, str(one.type)] for one in schema]}


def adbc_many_op(request):
    """One prepared statement, executed with several values."""
    user, token = token_of(request)
    answers = []
    with adbc(user, token).cursor() as cursor:
        for values in request["rows"]:
            cursor.execute(request["sql"], values)
            answers.append(arrow_rows(cursor.fetch_arrow_table())["rows"])
        schema = cursor.adbc_execute_schema(request["sql"]) if request.get("schema") else []
    return {"answers": answers, "schema": [[one.name, str(one.type)] for one in schema]}


def adbc_whole_op(request):
    """All of an answer through ADBC, written to a file of Arrow: the columns as they are promised, described, fetched and, of a `table`, listed."""
    user, token = token_of(request)
    connection = adbc(user, token)
    told = lambda schema: [[one.name, str(one.type)] for one in schema]
    with connection.cursor() as cursor:
        promised = told(cursor.adbc_execute_schema(request["sql"]))
        cursor.execute(request["sql"])
        described = [column[0] for column in cursor.description]
        table = cursor.fetch_arrow_table()
    with ipc.new_file(request["write"], table.schema) as writer:
        writer.write_table(table)
    found = {"rows": table.num_rows, "columns": told(table.schema), "promised": promised, "described": described}
    if request.get("table"):
        schema, name = request["table"].split(".")
        found["of_table"] = told(connection.adbc_get_table_schema(name, catalog_filter="lake", db_schema_filter=schema))
    return found


def adbc_cancel_op(request):
    """AdbcStatement.cancel from another thread, while rows are read."""
    import threading
    import adbc_driver_manager
    user, token = token_of(request)
    with adbc(user, token).cursor() as cursor:
        cursor.execute(request["sql"])
        reader = cursor.fetch_record_batch()
        reader.read_next_batch()
        threading.Timer(0.5, cursor.adbc_cancel).start()
        try:
            while True:
                reader.read_next_batch()
        except StopIteration:
            return {"ended": "as if it were whole"}
        except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
            return {"ended": "cancelled" if "ancel" in str(error) else str(error)}


# ---------------------------------------------------------------- those who mean harm

def connect(name, token, **more):
    import psycopg
    host, port = CONFIG["postgres"].rsplit(":", 1)
    return psycopg.connect(host=host, port=port, user=name, password=token, dbname="lake", autocommit=True, connect_timeout=20, sslmode="disable", **more)


def postgres_as_op(request):
    """A name with the token of another."""
    import psycopg
    try:
        connect(request["name"], CONFIG["users"][request["token_of"]]).close()
        return {}
    except psycopg.Error as error:
        state = error.sqlstate or ("28P01" if "28P01" in str(error) or "authentication" in str(error) else None)
        return {"error": {"code": state, "text": str(error)}}


def postgres_others_op(request):
    """What one session has prepared, opened and runs, reached for from another's."""
    import socket
    import threading
    import time
    import psycopg
    one, other = connect(request["one"], CONFIG["users"][request["one"]]), connect(request["other"], CONFIG["users"][request["other"]])
    one.execute("prepare mine as select 1 as one")
    one.execute("begin")
    one.execute("declare mine cursor for select 1 as one")
    found = {}
    for what, sql in (("statement", "execute mine"), ("cursor", "fetch all from mine")):
        try:
            other.execute(sql)
            found[what] = "opened"
        except psycopg.Error as error:
            found[what] = error.sqlstate
    one.execute("commit")
    ended = []
    def run():
        try:
            one.execute("select count(*) from generate_series(1, 100000000) a, generate_series(1, 100000000) b where a.value * b.value % 7 = 9")
            ended.append("answered")
        except psycopg.Error as error:
            ended.append(error.sqlstate)
    runner = threading.Thread(target=run)
    runner.start()
    time.sleep(0.5)
    host, port = CONFIG["postgres"].rsplit(":", 1)
    for secret in (0, 1, 2**31 - 1):
        with socket.create_connection((host, int(port)), timeout=10) as stranger:
            stranger.sendall(struct.pack("!iiii", 16, 80877102, one.info.backend_pid, secret))
            stranger.recv(1)
    time.sleep(0.5)
    found["cancelled_by_a_guess"] = bool(ended)
    one.cancel_safe()
    runner.join(30)
    found["cancelled_by_its_own"] = ended == ["57014"]
    one.close()
    other.close()
    return found


def silent_op(request):
    """Cursors, each on a connection of its own, that are fetched from once and then not again; what others of the same user are answered meanwhile,
    and what they themselves are told when they ask again after their limit."""
    import time
    import psycopg
    token = CONFIG["users"][request["user"]]
    silent = []
    for _ in range(request["times"]):
        one = connect(request["user"], token)
        one.execute("begin")
        one.execute("declare c cursor for " + request["sql"])
        silent.append((one, one.execute("fetch 1 from c").fetchone()))
    other = connect(request["user"], token)
    meanwhile = other.execute("select 1").fetchone()[0]
    time.sleep(request["limit"] + 1)
    told = []
    for one, _ in silent:
        try:
            told.append(len(one.execute("fetch all from c").fetchall()))
        except psycopg.Error as error:
            told.append(error.sqlstate)
        one.close()
    other.close()
    return {"first": [first[0] for _, first in silent], "meanwhile": meanwhile, "told": told}


def crowd_op(request):
    """Many statements at once over HTTP, and one of somebody else's meanwhile."""
    import concurrent.futures
    import time
    def hungry(_):
        try:
            ask_http({"user": request["user"], "sql": request["sql"]}, "application/vnd.apache.arrow.stream")
            return "answered"
        except Refused as error:
            return error.args[0]["code"]
    with concurrent.futures.ThreadPoolExecutor(request["times"]) as pool:
        started = [pool.submit(hungry, at) for at in range(request["times"])]
        time.sleep(0.5)
        meanwhile = http({"user": request["as"], "sql": request["meanwhile"]})
        return {"meanwhile": meanwhile, "codes": [one.result() for one in started]}


# ---------------------------------------------------------------- the session

def late(*_):
    raise TimeoutError("no answer in time")


def answer(request):
    signal.signal(signal.SIGALRM, late)
    signal.alarm(int(request.get("seconds", 120)) + 10)
    try:
        if "op" in request:
            return globals()[request["op"] + "_op"](request)
        return DOORS[request["door"]](request)
    except Refused as error:
        return {"error": error.args[0]}
    except (flight.FlightError, pa.ArrowException) as error:
        text = re.sub(r"\. (gRPC client debug context|Client context|Detail):.*", "", str(error), flags=re.S)
        return {"error": {"code": weir_code(text), "grpc": type(error).__name__, "text": text}}
    except http_client.HTTPException as error:
        # An answer that broke off after its first byte, or before it.
        return {"error": {"code": "broken-off", "text": f"{type(error).__name__}: {error}"[:500]}}
    except (OSError, TimeoutError, subprocess.TimeoutExpired) as error:
        # pyarrow has no class of its own for each status.
        return {"error": {"code": weir_code(str(error)), "text": f"{type(error).__name__}: {error}"}}
    finally:
        signal.alarm(0)


def main():
    CONFIG.update(json.loads(sys.argv[1]))
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
    sys.stdout.flush()
    # The clients' own threads can abort the interpreter on its way out, when everything has been said.
    os._exit(0)


main()
