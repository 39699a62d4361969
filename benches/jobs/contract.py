"""One pipeline twice: without a contract, and with one that every row satisfies. `benches/contract` knows more about contracts."""

from harness.job import SUMMED, Job, Program, at_most, clean, sums
from harness.needs import ROOT

RULES = ROOT / "benches" / "contracts" / "lineitem.schema.json"
SINKS = {"Parquet": '[sink.out.file]\npath = "out.parquet"\n', "lake": '[sink.out.lake]\ntable = "bench.rows"\n'}
PLACES = {"Parquet": ("parquet", "out.parquet"), "lake": ("delta", ".weir/lake/bench/rows")}


class Contract(Job):
    name, title = "contract", "A contract, on and off"
    inputs = [".csv", ".parquet"]
    room = 0.3
    left_out = "other programs: `benches/contract` compares the check itself with theirs."

    def ready(self):
        self.what = (
            f"TPC-H lineitem at scale {self.scale:g}, {self.facts['rows'][0]:,} rows; the 12 rules of `benches/contracts/lineitem.schema.json`, which all rows "
            "satisfy. With the contract CSV is read into its types, without it into those that the text suggests."
        )

    def list(self):
        for form, end, sink in (("CSV", ".csv", "Parquet"), ("Parquet", ".parquet", "lake")):
            off = None
            for what in ("off", "on"):
                folder = f"{form}-{what}"
                rule = 'contract = "rows.schema.json"\non_invalid = "quarantine"\n' if what == "on" else ""
                start = f'weir = 1\nname = "bench"\n[source.rows]\n{rule}[source.rows.file]\npath = "{self.data.file(end)}"\n'
                command = self.weir(folder, f'{start}[sink.out]\nfrom = "rows"\nmode = "replace"\n{SINKS[sink]}')
                (self.work / folder / "rows.schema.json").write_text(RULES.read_text())
                kind, place = PLACES[sink]
                found = lambda said, kind=kind, out=self.work / folder / place: sums(kind, out, SUMMED)  # noqa: E731
                prepare = lambda: clean(*self.work.glob("*/.weir"), *self.work.glob("*/out.parquet"))  # noqa: E731
                name = f"Weir, {form} to {sink}, contract {what}"
                made = Program(name, command, found, self.facts["rows"], SUMMED, prepare, [self.data.file(end)], slack=1e-9, peer=False)
                off = off or made
                made.again = off
                yield made

    def goals(self):
        for way in ("CSV to Parquet", "Parquet to lake"):
            ratio = self.ratio(f"Weir, {way}, contract off", f"Weir, {way}, contract on")
            yield at_most(f"{way}: with the contract at most 1.15 × without", 1.15, ratio)
