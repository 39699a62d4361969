"""What `benches/load` needs before it can start: the other programs, servers, and the rows in every format. Jobs are elsewhere."""

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weir"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", CACHE / "target"))
BENCH = CACHE / "bench"
SERVERS = CACHE / "servers-venv"
PEERS = CACHE / "load-peers"
PROGRAMS = Path(__file__).with_name("peers.py")
WANTED = {
    "loaders": [
        "dlt[postgres,parquet]==1.31.0", "adbc-driver-postgresql==1.13.0", "adbc-driver-manager==1.13.0", "pyarrow==26.0.1",
        "sling-linux-amd64==1.4.11", "clickhouse-connect==1.12.0",
    ],
    "ingestr": ["ingestr==0.15.9"],
}  # fmt: skip


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


def install():
    """Installs the other programs and the servers; returns what could not be installed and why, by environment."""
    run(sys.executable, ROOT / "tests" / "support" / "servers.py", "install")
    failed = {}
    for name, wanted in WANTED.items():
        stamp, want = PEERS / name / "stamp", hashlib.sha256("\n".join(wanted).encode()).hexdigest()
        if stamp.exists() and stamp.read_text() == want:
            continue
        run(sys.executable, "-m", "venv", PEERS / name)
        pip = [python(name), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
        done = subprocess.run(pip, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            failed[name] = last_words(done.stdout)
        else:
            stamp.write_text(want)
    return failed


def made(file, make):
    """A cached file, complete or absent."""
    if not file.exists():
        part = file.with_name(file.name + ".part")
        make(part)
        part.rename(file)
    return file


class Data:
    """The rows of one scale in every format, made once."""

    def __init__(self, scale):
        BENCH.mkdir(parents=True, exist_ok=True)
        self.prefix = BENCH / f"lineitem-{scale:g}"
        made(self.file(".csv"), lambda part: self.generate(part, scale))
        # Written last.
        if not self.file(".json").exists():
            print(f"making {self.prefix}.* …", flush=True)
            run(python("loaders"), PROGRAMS, "data", self.file(".csv"), self.prefix)
        self.facts = json.loads(self.file(".json").read_text())

    @staticmethod
    def generate(part, scale):
        with open(part, "wb") as output:
            subprocess.run([str(TARGET / "release" / "lineitem"), f"{scale:g}"], stdout=output, check=True)

    def file(self, end):
        """`.csv`, `.parquet`, `.arrow` (file), `.arrows` (stream), `.pgcopy`, the same after `-change`; `.json`: count and sums."""
        return Path(f"{self.prefix}{end}")


@contextlib.contextmanager
def server(kind):
    """A private server: its URL and its process."""
    # Where root's Postgres, which runs as "nobody", can enter.
    folder = tempfile.mkdtemp(prefix="weir-load-", dir="/var/tmp" if os.geteuid() == 0 else BENCH)
    program = [sys.executable, str(ROOT / "tests" / "support" / "servers.py")]
    try:
        up = [*program, "up", "--dir", folder, "--only", kind, "--while", str(os.getpid())]
        told = subprocess.run(up, stdout=subprocess.PIPE, text=True, check=True).stdout
        known = dict(re.findall(r"export WEIR_TEST_\w+_(URL|PID)=(\S+)", told))
        yield known["URL"], int(known["PID"])
    finally:
        subprocess.run([*program, "down", "--dir", folder, "--delete"], check=False)
