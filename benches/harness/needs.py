"""What a job needs before it can start: the other programs, servers, and the rows in every format. Jobs are elsewhere."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weir"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", CACHE / "target"))
BENCH = CACHE / "bench"
WORK = BENCH / "work"
SERVERS = CACHE / "servers-venv"
PEERS = CACHE / "load-peers"
PROGRAMS = Path(__file__).with_name("programs.py")
WANTED = {
    "tables": ["duckdb==2.0.0", "polars==2.1.0", "deltalake==1.6.6", "pyarrow==26.0.1"],
    "loaders": [
        "dlt[postgres,parquet,deltalake,sql-database]==1.31.0", "adbc-driver-postgresql==1.13.0", "adbc-driver-manager==1.13.0",
        "pyarrow==26.0.1", "sling-linux-amd64==1.4.11", "clickhouse-connect==1.12.0",
    ],
    "ingestr": ["ingestr==0.15.9"],
}  # fmt: skip
# GB of a format at scale 1, little more than they are.
SIZES = {
    ".csv": 0.8, ".parquet": 0.25, ".arrow": 1.05, ".arrows": 1.05, ".pgcopy": 1.2, "-change.csv": 0.06, "-change.parquet": 0.02,
    "-change.arrow": 0.06, "-change.arrows": 0.06, "-change.pgcopy": 0.08, "orders": 0.18, "events": 0.75,
}  # fmt: skip
EVENTS = 1_000_000  # at scale 1


def run(*command, **more):
    """Output of a command that must not fail."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    if done.returncode:
        sys.exit(f"{command[0]} failed with {done.returncode}:\n{done.stdout[-3000:]}")
    return done.stdout


def last_words(text):
    """What a failed program says of why: its first and its last line that sound like it."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]
    told = [line for line in lines if re.search(r"(?i)error|failed|exception|unsupported", line)] or lines
    return " … ".join(dict.fromkeys(line[:300] for line in told[:1] + told[-1:]))[:500] or "it said nothing"


def python(name):
    return str(PEERS / name / "bin" / "python")


def sling():
    """The program that the wheel carries; its Python part would download another."""
    found = list((PEERS / "loaders").glob("lib/python*/site-packages/sling_linux_amd64/bin/sling-linux-amd64"))
    return str(found[0]) if found else str(PEERS / "loaders" / "bin" / "sling-linux-amd64")


def ingestr():
    return str(PEERS / "ingestr" / "bin" / "ingestr")


def quietly(home):
    """An environment in which the other programs tell nobody, and keep what they remember in a folder."""
    off = {"SLING_DISABLE_TELEMETRY": "true", "INGESTR_DISABLE_TELEMETRY": "true", "RUNTIME__DLTHUB_TELEMETRY": "false"}
    return {"HOME": str(home), "SLING_HOME_DIR": str(home), "DO_NOT_TRACK": "1", **off}


def install():
    """Installs the other programs and the servers; returns what could not be installed and why, by environment."""
    run(sys.executable, ROOT / "tests" / "support" / "servers.py", "install")
    failed = {}
    for name, wanted in WANTED.items():
        stamp, want = PEERS / name / "stamp", hashlib.sha256("\n".join(wanted).encode()).hexdigest()
        if stamp.exists() and stamp.read_text() == want:
            continue
        print(f"installing {', '.join(wanted)} …", flush=True)
        run(sys.executable, "-m", "venv", PEERS / name)
        pip = [python(name), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
        done = subprocess.run(pip, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            failed[name] = last_words(done.stdout)
        else:
            stamp.write_text(want)
    return failed


def uncached(*places):
    """Lets files, or all below folders, be read from the disk again. What has just been written lies in the cache in large pieces, and newer kernels
    count all of a piece as memory of whoever touches a page of it: a program just built or installed would seem larger than it is tomorrow."""
    for place in places:
        for file in [place] if place.is_file() else filter(Path.is_file, place.rglob("*")):
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def made(file, make):
    """A cached file, complete or absent."""
    if not file.exists():
        part = file.with_name(file.name + ".part")
        make(part)
        part.rename(file)
    return file


def free():
    """GB that are free where the benches work."""
    BENCH.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(BENCH).free / 1e9


class Data:
    """The rows of one scale, each format made when a job asks for it, once."""

    def __init__(self, scale):
        BENCH.mkdir(parents=True, exist_ok=True)
        self.scale, self.prefix = scale, BENCH / f"lineitem-{scale:g}"

    def file(self, end):
        """Of lineitem `.csv`, `.parquet`, `.arrow` (file), `.arrows` (stream), `.pgcopy`, the same after `-change`; `.json`: count and sums.
        `orders`: TPC-H's orders as CSV. `events`: nested NDJSON. What a server makes (`.pgcopy`) is made where the server is."""
        other = {"orders": f"orders-{self.scale:g}.csv", "events": f"events-{self.scale:g}.ndjson", "events.json": f"events-{self.scale:g}.json"}
        return BENCH / other[end] if end in other else Path(f"{self.prefix}{end}")

    def missing(self, ends):
        """GB that making these formats takes."""
        return sum(SIZES[end] * self.scale for end in ends if not self.file(end).exists())

    def make(self, ends, lineitem=True):
        """Makes what is not there yet; returns the facts of lineitem."""
        if ".csv" in ends:
            made(self.file(".csv"), self.lineitem)
        if "orders" in ends:
            made(self.file("orders"), self.orders)
        if "events" in ends and not (self.file("events").exists() and self.file("events.json").exists()):
            run(python("tables"), PROGRAMS, "events", max(1000, int(EVENTS * self.scale)), self.file("events"), self.file("events.json"))
        wanted = [end for end in ends if end.startswith((".", "-")) and end != ".csv" and not end.endswith(".pgcopy")]
        wanted = [end for end in wanted if not self.file(end).exists()]
        if not lineitem:
            return {}
        if wanted or not self.file(".json").exists():
            print(f"making {self.prefix}{{{','.join(wanted)}}} …", flush=True)
            program = [python("tables"), str(PROGRAMS), "data", str(self.prefix), *wanted]
            if self.file(".csv").exists():
                with open(self.file(".csv"), "rb") as rows:
                    subprocess.run(program, stdin=rows, check=True)
            else:
                with subprocess.Popen([TARGET / "release" / "lineitem", f"{self.scale:g}"], stdout=subprocess.PIPE) as rows:
                    subprocess.run(program, stdin=rows.stdout, check=True)
        return json.loads(self.file(".json").read_text())

    def lineitem(self, part):
        with open(part, "wb") as output:
            subprocess.run([str(TARGET / "release" / "lineitem"), f"{self.scale:g}"], stdout=output, check=True)

    def orders(self, part):
        """One table of all that `sql tpch` writes: the others go nowhere."""
        with tempfile.TemporaryDirectory(dir=BENCH) as folder:
            for table in ("region", "nation", "part", "supplier", "partsupp", "customer", "lineitem"):
                os.symlink("/dev/null", f"{folder}/{table}.csv")
            run(TARGET / "release" / "sql", "tpch", f"{self.scale:g}", folder)
            os.rename(f"{folder}/orders.csv", part)

    def keep(self, ends):
        """Removes the formats that are not among these; facts stay."""
        for end in SIZES:
            if end not in ends:
                self.file(end).unlink(missing_ok=True)


@contextlib.contextmanager
def server(kind):
    """A private server: its URL and its process."""
    # Where root's Postgres, which runs as "nobody", can enter.
    folder = tempfile.mkdtemp(prefix="weir-bench-", dir="/var/tmp" if os.geteuid() == 0 else BENCH)
    program = [sys.executable, str(ROOT / "tests" / "support" / "servers.py")]
    try:
        up = [*program, "up", "--dir", folder, "--only", kind, "--while", str(os.getpid())]
        told = subprocess.run(up, stdout=subprocess.PIPE, text=True, check=True).stdout
        known = dict(re.findall(r"export WEIR_TEST_\w+_(URL|PID)=(\S+)", told))
        yield known["URL"], int(known["PID"])
    finally:
        subprocess.run([*program, "down", "--dir", folder, "--delete"], check=False)
