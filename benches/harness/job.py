"""What a job is: programs that do the same work in turn, each verified before its time counts, and the section that tells of them."""

import contextlib
import dataclasses
import decimal
import os
import re
import shutil
import statistics
import subprocess

import results
from harness.measure import Failed, measure
from harness.needs import PEERS, PROGRAMS, WORK, free, python

MEMORY = "256MB"  # Weir's limit, and DuckDB's
SLOW = 30  # seconds from which a peer runs once; twice as many where scale is large
BIG = 2  # scales above are for Weir, its limits and few peers
TENFOLD = 10  # the scale beside which Weir takes its turns with a tenth of the rows, too
KEY = ["l_orderkey", "l_linenumber"]
SUMMED = ["l_orderkey", "l_quantity", "l_extendedprice"]


@dataclasses.dataclass
class Program:
    """One way to do a job: `prepare` makes everything ready, `command` is measured, `found` looks at what came of it."""

    name: str
    command: list
    found: object  # called with what the command said; returns numbers, or None where there is nothing
    want: list
    names: list = dataclasses.field(default_factory=list)  # of what follows the count
    prepare: object = lambda: None
    inputs: list = dataclasses.field(default_factory=list)
    environment: dict = dataclasses.field(default_factory=dict)
    slack: float = 0  # what sums of floating-point numbers may lose by their order
    peer: bool = True
    rows: int = 0  # that it reads, where they are not those that arrive
    again: object = None  # the program whose time this one is compared with; the job's first otherwise
    runs: list = dataclasses.field(default_factory=list)
    failure: str = ""
    wrong: str = ""

    def median(self, what="seconds"):
        return statistics.median(getattr(run, what) for run in self.runs)


class Job:
    """What is done, by which programs, and what is wanted of Weir. A context: inside it servers run and data is there."""

    name = title = what = left_out = ""
    inputs = []  # formats of the data
    room = 0.0  # GB that the work takes at scale 1, besides data
    warms = "all"  # whose first turn does not count: all, own (not peers), none
    scaled = True  # whether scale means anything to it
    lineitem = True  # whether it is about lineitem, whose facts must be known
    scale_max = None

    def __init__(self, bench, scale, big=False):
        self.bench, self.scale, self.data, self.work = bench, scale, bench.data(scale), WORK / f"{scale:g}"
        self.stack, self.servers, self.programs, self.facts, self.notes = contextlib.ExitStack(), [], [], {}, []
        self.big = big or scale > BIG
        self.slow = SLOW * 2 if self.big else SLOW
        # How time and memory grow is seen where both amounts of rows take turns: the machine is not always as fast.
        self.tenth = type(self)(bench, scale / 10, big=True) if self.scaled and scale == TENFOLD else None

    @property
    def heading(self):
        return f"{self.title}, scale {self.scale:g}" if self.scaled else self.title

    def wants(self):
        """The formats of data at this scale."""
        return self.inputs

    def why_not(self):
        """Why it cannot run here, or nothing."""
        if self.scale_max and self.scale > self.scale_max:
            return f"{self.left_out or 'it does not run'} above scale {self.scale_max:g}"
        need, there = self.need() + (self.tenth.need() if self.tenth else 0) + 0.5, free()
        return f"it takes {need:.1f} GB of disk, and {there:.1f} GB are free" if need > there else ""

    def need(self):
        """GB that it takes."""
        return self.data.missing(self.wants()) + self.room * (self.scale if self.scaled else 1)

    def __enter__(self):
        clean(self.work)
        self.work.mkdir(parents=True)
        try:
            self.facts = self.data.make(self.wants(), self.lineitem)
            self.ready()
            self.programs = list(self.list())
            if self.tenth:
                self.stack.enter_context(self.tenth)
                self.tenth.programs = self.tenth.mine()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stack.close()
        clean(self.work)

    def ready(self):
        """Starts servers."""

    def list(self):
        """The programs; the first is Weir's, with which the others are compared."""
        return []

    def mine(self):
        """Those of the programs that are Weir."""
        return [program for program in self.programs if program.name.startswith("Weir")]

    def goals(self):
        """What was wanted: (text, whether it is met, or None where it cannot be said; what was seen)."""
        return []

    def weir(self, name, pipeline, *connections):
        """A project with one pipeline: the command that runs it."""
        folder = self.work / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weir.toml").write_text("\n".join([f'[memory]\nlimit = "{MEMORY}"\n', *(server.connection for server in connections)]))
        (folder / "pipeline.toml").write_text(pipeline)
        return [self.bench.weir, "--quiet", "run", str(folder / "pipeline.toml")]

    def find(self, start):
        return next((program for program in self.programs if program.name.startswith(start) and program.runs), None)

    def ratio(self, start, mine=None):
        """Weir's seconds by another's."""
        mine, other = self.find(mine) if mine else self.programs[0], self.find(start)
        return mine.median() / other.median() if mine and mine.runs and other else None

    def turn(self, program):
        """One run, from what it starts with to a look at what arrived."""
        program.prepare()
        for file in program.inputs:
            with open(file, "rb", buffering=0) as warm:
                while warm.read(1 << 22):
                    pass
        # What was written before, by whomever, is not written to the disk meanwhile.
        os.sync()
        one, said = measure(list(map(str, program.command)), program.environment, [pid for _, pid in self.servers])
        found = program.found(said)
        if found is None:
            raise Failed("it ended well, but nothing arrived")
        want, found = (list(map(number, numbers)) for numbers in (program.want, found))
        close = [abs(got - meant) <= abs(meant) * decimal.Decimal(program.slack) for got, meant in zip(found, want, strict=True)]
        if all(close):
            return one
        if not program.peer or found[0] != want[0]:
            raise Failed(f"it ended well, but count and sums are {', '.join(map(str, found))} instead of {', '.join(map(str, want))}")
        # What another program makes of the values is told, and its time counts all the same.
        told = zip(program.names, found[1:], want[1:], close[1:])
        different = [f"sum({name}) is {got} instead of {meant}" for name, got, meant, same in told if not same]
        program.wrong = f"loads all rows, but other values: {', '.join(different)}"
        return one

    def attempt(self, program, more=""):
        try:
            one = self.turn(program)
        except Failed as failed:
            program.failure = str(failed)
            print(f"{self.name}, {program.name}{more}: {program.failure}", flush=True)
            return None
        cpu = f"client {one.client:.1f} s, server {one.server:.1f} s of CPU; others {one.others:.0%} of the machine"
        print(f"{self.name}, {program.name}{more}: {one.seconds:.2f} s, {one.memory / 1e6:.0f} MB, {cpu}", flush=True)
        return one

    def warmed(self, program):
        """After a turn that does not count."""

    def run(self):
        """All programs in turn, as often as was asked."""
        for program in self.programs:
            for name, why in self.bench.uninstalled.items():
                if any(str(part).startswith(f"{PEERS / name}/") for part in program.command):
                    program.failure = f"could not be installed: {why}"
        slow = set()
        for at in range(self.bench.runs + (self.warms != "none" and not self.bench.quick)):
            for job, program in self.turns():
                counts = self.bench.quick or self.warms == "none" or at > 0
                if program.failure or (program.peer and program.name in slow and program.runs):
                    continue
                if counts or not (program.peer and self.warms == "own"):
                    one = job.attempt(program, ("" if job is self else ", a tenth of the rows") + ("" if counts else ", warming"))
                    if one and program.peer and one.seconds > self.slow:
                        # One run of a slow peer is enough: it warms nobody.
                        slow.add(program.name)
                        counts = True
                    if one and counts:
                        program.runs.append(one)
                    elif one:
                        job.warmed(program)

    def turns(self):
        """Whose turn it is, one after the other: with a tenth of the rows right before all of them."""
        tenth = iter(self.tenth.programs if self.tenth else [])
        for program in self.programs:
            if program in self.mine() and (small := next(tenth, None)):
                yield self.tenth, small
            yield self, program

    def section(self):
        """The lines of RESULTS.md."""
        yield f"Made by `benches/compare`; read `benches/compare --help`. {results.circumstances()}"
        yield ""
        runs = [run for program in self.programs for run in program.runs]
        others = [run.others for run in runs]
        yield (
            f"{self.what} Medians of {self.bench.runs} runs, the programs in turn (a peer that takes more than {self.slow} s ran once); what arrived was "
            f"counted and summed each time. Weir's memory limit is {MEMORY}."
        )
        if others:
            yield (
                f"Everything else on the machine, the kernel's own work included, took {statistics.median(others):.0%} of its processors meanwhile "
                f"(median; at most {max(others):.0%})."
            )
        yield ""
        yield "| program | seconds: median (least to most) | runs | rows/s | Weir's seconds to its | peak memory | client: CPU s | server: CPU s |"
        yield "|---|---|---|---|---|---|---|---|"
        for program in self.programs:
            if program.runs:
                seconds, digits = [run.seconds for run in program.runs], 3 if program.median() < 1 else 2
                base = program.again or self.programs[0]
                ratio = f"{base.median() / program.median():.2f} ×" if base.runs and base is not program else "–"
                yield (
                    f"| {program.name} | {program.median():.{digits}f} ({min(seconds):.{digits}f} to {max(seconds):.{digits}f}) | {len(seconds)} "
                    f"| {short((program.rows or int(program.want[0])) / program.median()) if program.want else '–'} | {ratio} "
                    f"| {max(run.memory for run in program.runs) / 1e6:.0f} MB "
                    f"| {program.median('client'):.1f} | {program.median('server'):.1f} |"
                )
        for note in [note for note in self.notes if note]:
            yield from ["", note]
        goals = list(self.goals())
        if goals:
            yield from ["", "Goals:", ""]
            for text, met, seen in goals:
                yield f"- {text}: " + ("not shown, a program did not run" if met is None else f"{'met' if met else 'missed'}, it shows {seen}")
        if wrong := [program for program in self.programs if program.wrong]:
            yield from ["", "Wrong, though they said it went well:", "", *(f"- {program.name}: {program.wrong}" for program in wrong)]
        if failed := [program for program in self.programs if program.failure]:
            yield from ["", "Did not run:", "", *(f"- {program.name}: {program.failure}" for program in failed)]
        left_out = self.left_out_here()
        if left_out:
            yield from ["", f"Left out: {left_out}"]

    def left_out_here(self):
        return self.left_out

    def failed(self):
        ours = [program for job in (self.tenth, self) if job for program in job.programs if not program.peer]
        return [f"{self.name}: {program.name}" for program in ours if program.failure]

    def growth(self):
        """What Weir took for a tenth of the rows, and for all of them: seconds and memory, by what they are told under."""
        if not self.tenth:
            return {}
        pairs = [pair for pair in zip(self.tenth.programs, self.mine(), strict=True) if all(one.runs and not one.failure for one in pair)]
        figures = lambda one: (one.median(), max(run.memory for run in one.runs))  # noqa: E731
        return {f"{self.title}: {all_rows.name}": (figures(tenth), figures(all_rows)) for tenth, all_rows in pairs}


def at_most(text, goal, ratio):
    """A goal that a ratio does not exceed."""
    return text, None if ratio is None else ratio <= goal, f"{ratio:.2f} ×" if ratio is not None else ""


def at_least(text, goal, ratio):
    return text, None if ratio is None else ratio >= goal, f"{ratio:.2f} ×" if ratio is not None else ""


def inverse(ratio):
    return 1 / ratio if ratio else None


def number(text):
    try:
        return decimal.Decimal(str(text))
    except decimal.InvalidOperation:
        raise Failed(f"a sum is {text}") from None


def short(value):
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value / 1e3:.0f} k" if value >= 1e4 else f"{value:.0f}"


def sums(kind, place, names):
    """What another reader finds in files: count and sums."""
    command = [python("tables"), str(PROGRAMS), "sums", kind, str(place), ",".join(names)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    told = re.search(r"(?m)^facts (.*)$", done.stdout)
    if done.returncode or not told:
        raise Failed(f"what it wrote cannot be read: {done.stdout.strip().splitlines()[-1] if done.stdout.strip() else 'no word'}")
    return told.group(1).split()


def clean(*folders):
    """Makes what a program left of its last turn go."""
    for folder in folders:
        if folder.is_dir():
            shutil.rmtree(folder)
        else:
            folder.unlink(missing_ok=True)
