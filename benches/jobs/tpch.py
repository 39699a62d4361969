"""The 22 queries of TPC-H through the lake, beside plain DataFusion and DuckDB: `benches/sql` asks them, and writes its own section."""

import subprocess
import sys

from harness.job import Job
from harness.needs import ROOT


class Tpch(Job):
    name, title = "tpch", "Asking with SQL"
    lineitem = False
    room = 2.5  # all tables as CSV, and the lake
    left_out = "all tables as CSV beside the lake take more disk than these benches ask for: it is not run"
    scale_max = 2

    @property
    def heading(self):
        return self.title if self.scale <= self.scale_max else super().heading

    def run(self):
        scale = ["--quick"] if self.bench.quick else ["--scale", f"{self.scale:g}", "--runs", str(self.bench.runs)]
        command = [sys.executable, ROOT / "benches" / "sql", *scale, "--weir", self.bench.weir]
        self.ended = subprocess.run(list(map(str, command))).returncode

    def failed(self):
        return [f"{self.name}: benches/sql ended with {self.ended}"] if self.ended else []
