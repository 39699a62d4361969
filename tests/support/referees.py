"""Ends with 0 when exactly the pinned referees are installed: `python referees.py requirements.txt`."""

import sys
from importlib import metadata

for line in open(sys.argv[1], encoding="utf-8"):
    line = line.split("#")[0].strip()
    if line:
        name, version = line.split("==")
        if metadata.version(name) != version:
            sys.exit(f"{name} is {metadata.version(name)}, the tests want {version}")
