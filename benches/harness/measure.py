"""Runs one command and says what it took: seconds, memory and processor time, its own and the server's."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

from harness.needs import BENCH, last_words

DEADLINE = 1800  # seconds that a command may take


@dataclasses.dataclass
class Run:
    """What one run took: wall seconds, peak bytes, CPU seconds of client and server; and the share of the machine that others took."""

    seconds: float
    memory: int
    client: float
    server: float
    others: float


class Failed(Exception):
    """A job that does not run: said in the results."""


def children(pid):
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += Path(f"/proc/{pid}/task/{task}/children").read_text().split()
    return [int(child) for child in found]


def family(pid):
    pids, at = [pid], 0
    while at < len(pids):
        pids += children(pids[at])
        at += 1
    return pids


def cpu(pid):
    """CPU seconds of a server: its process, those of its children that ended, and those that live."""
    ticks = 0
    for member in family(pid):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


class Memory(threading.Thread):
    """Watches the resident sets of a process and all below it."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.ended = pid, 0, threading.Event()

    def run(self):
        page = os.sysconf("SC_PAGE_SIZE")
        while not self.ended.wait(0.05):
            total, alone = 0, 0
            for member in family(self.pid):
                with contextlib.suppress(OSError, IndexError):
                    total += int(Path(f"/proc/{member}/statm").read_text().split()[1]) * page
                    if member == self.pid:
                        # The kernel's own high-water mark knows what lay between two looks.
                        mark = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{member}/status").read_text())
                        alone = int(mark.group(1)) * 1024 if mark else 0
            self.peak = max(self.peak, total, alone)


def busy():
    """CPU seconds of everything on this machine, the kernel's own work too."""
    ticks = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def measure(command, environment, servers=()):
    """Runs a command beside the servers of those process ids. Returns a Run and what the command said; fails with its last words."""
    log = BENCH / "bench.log"
    before, others = sum(map(cpu, servers)), busy()
    with open(log, "wb") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=BENCH,
            env={**os.environ, **environment}, start_new_session=True,
        )  # fmt: skip
        memory = Memory(process.pid)
        memory.start()
        late = threading.Timer(DEADLINE, lambda: os.killpg(process.pid, signal.SIGKILL))
        late.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - started
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            late.cancel()
            memory.ended.set()
            memory.join()
    others = busy() - others
    process.returncode = os.waitstatus_to_exitcode(status)
    said = log.read_text(errors="replace")
    if process.returncode != 0:
        raise Failed(f"ended with {process.returncode} after {seconds:.0f} s: {last_words(said)}")
    # A program that times its own statement says so.
    told = re.search(r"(?m)^seconds ([0-9.]+)$", said)
    # A server's process that ends with its connection is counted by its parent, once that has noticed.
    time.sleep(0.2)
    client, server = usage.ru_utime + usage.ru_stime, sum(map(cpu, servers)) - before
    others = max(0, others - client - server) / (seconds * os.cpu_count())
    # What ends before the first look is known to the system.
    peak = memory.peak or usage.ru_maxrss * 1024
    return Run(float(told.group(1)) if told else seconds, peak, client, server, others), said
