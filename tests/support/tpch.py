"""TPC-H, asked of DuckDB and of `weir sql` over the same files.

  tpch.py parquet FOLDER WEIR   writes FOLDER/tpch/*.parquet from the .csv beside them, in the types of the benchmark
  tpch.py compare FOLDER WEIR   asks both FOLDER/queries_of_tpch/1.sql to 22.sql, and compares rows
"""

import decimal
import os
import re
import subprocess
import sys

import duckdb
import pyarrow.parquet as pq

TYPES = {
    "region": "r_regionkey int, r_name varchar, r_comment varchar",
    "nation": "n_nationkey int, n_name varchar, n_regionkey int, n_comment varchar",
    "part": "p_partkey bigint, p_name varchar, p_mfgr varchar, p_brand varchar, p_type varchar, p_size int, p_container varchar, "
            "p_retailprice decimal(15,2), p_comment varchar",
    "supplier": "s_suppkey bigint, s_name varchar, s_address varchar, s_nationkey int, s_phone varchar, s_acctbal decimal(15,2), s_comment varchar",
    "partsupp": "ps_partkey bigint, ps_suppkey bigint, ps_availqty int, ps_supplycost decimal(15,2), ps_comment varchar",
    "customer": "c_custkey bigint, c_name varchar, c_address varchar, c_nationkey int, c_phone varchar, c_acctbal decimal(15,2), "
                "c_mktsegment varchar, c_comment varchar",
    "orders": "o_orderkey bigint, o_custkey bigint, o_orderstatus varchar, o_totalprice decimal(15,2), o_orderdate date, o_orderpriority varchar, "
              "o_clerk varchar, o_shippriority int, o_comment varchar",
    "lineitem": "l_orderkey bigint, l_partkey bigint, l_suppkey bigint, l_linenumber int, l_quantity decimal(15,2), l_extendedprice decimal(15,2), "
                "l_discount decimal(15,2), l_tax decimal(15,2), l_returnflag varchar, l_linestatus varchar, l_shipdate date, l_commitdate date, "
                "l_receiptdate date, l_shipinstruct varchar, l_shipmode varchar, l_comment varchar",
}


def parquet(folder):
    con = duckdb.connect()
    for name, columns in TYPES.items():
        types = ", ".join("'{}': '{}'".format(*column.strip().split(" ", 1)) for column in columns.replace("15,2", "15;2").split(",")).replace(";", ",")
        source = f"read_csv('{folder}/tpch/{name}.csv', header = true, quote = '\"', columns = {{{types}}})"
        con.execute(f"copy (select * from {source}) to '{folder}/tpch/{name}.parquet' (format parquet)")


def same(one, other):
    """Text, dates and whole numbers exactly; averages, which one engine rounds and the other has as floats, to a millionth."""
    if isinstance(one, (float, decimal.Decimal)) and isinstance(other, (float, decimal.Decimal)):
        if isinstance(one, decimal.Decimal) and isinstance(other, decimal.Decimal) and one.as_tuple().exponent == other.as_tuple().exponent:
            return one == other
        return abs(float(one) - float(other)) <= 1e-6 + 1e-9 * abs(float(other))
    if isinstance(one, (int, decimal.Decimal)) and isinstance(other, (int, decimal.Decimal)):
        return decimal.Decimal(one) == decimal.Decimal(other)
    return one == other


def key(row):
    """Sorts rows alike, whatever a number's type."""
    return [(value is None, round(float(value), 4) if isinstance(value, (int, float, decimal.Decimal)) else str(value)) for value in row]


def compare(folder, weir):
    con = duckdb.connect()
    for name in TYPES:
        con.execute(f"create view {name} as select * from '{folder}/tpch/{name}.parquet'")
    wrong, asked, seen = [], 0, 0
    environment = {"PATH": os.environ["PATH"], "HOME": folder, "TZ": "UTC", "NO_COLOR": "1"}
    for number in range(1, 23):
        sql = open(f"{folder}/queries_of_tpch/{number}.sql", encoding="utf-8").read().strip().rstrip(";")
        table = con.sql(sql).to_arrow_table()
        qualified = qualify(sql)
        out = f"{folder}/q{number}.parquet"
        done = subprocess.run([weir, "sql", "-c", qualified, "-o", out], cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
        if done.returncode:
            wrong.append(f"query {number}: {done.stderr}")
            continue
        ours = pq.read_table(out)
        expected, found = (sorted((tuple(row.values()) for row in one.to_pylist()), key=key) for one in (table, ours))
        asked, seen = asked + 1, seen + len(expected)
        if len(expected) != len(found):
            wrong.append(f"query {number}: {len(found)} rows, DuckDB has {len(expected)}")
            continue
        for one, other in zip(found, expected):
            if len(one) != len(other) or not all(same(a, b) for a, b in zip(one, other)):
                wrong.append(f"query {number}: {one}\n  DuckDB has {other}")
                break
    if wrong:
        sys.exit("\n".join(wrong))
    assert seen > 300, f"{seen} rows are too few to say anything"
    print(f"{asked} queries agree in {seen} rows")


def qualify(sql):
    """The lake's tables stand in a schema of their own."""
    names = "|".join(TYPES)
    return re.sub(rf"((?:from|join|,)\s+)({names})(?![\w.])", r"\1lake.tpch.\2", sql)


if sys.argv[1] == "parquet":
    parquet(sys.argv[2])
else:
    compare(sys.argv[2], sys.argv[3])
