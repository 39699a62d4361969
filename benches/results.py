"""Keeps RESULTS.md: each bench writes the section under its own heading and leaves the others as they are."""

import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILE = HERE / "RESULTS.md"


def put(heading, lines):
    """Replaces the section under `## heading`, or adds it at the end."""
    text = FILE.read_text() if FILE.exists() else "# Results\n"
    head, *sections = re.split(r"(?m)^(?=## )", text)
    section = f"## {heading}\n\n" + "\n".join(lines).strip() + "\n"
    at = [i for i, old in enumerate(sections) if old.splitlines()[0] == f"## {heading}"]
    if at:
        sections[at[0]] = section
    else:
        sections.append(section)
    FILE.write_text("\n\n".join(part.strip() for part in [head, *sections]) + "\n")


def get(heading):
    """The lines of the section under this heading, if there is one."""
    text = FILE.read_text() if FILE.exists() else ""
    return next((section.splitlines()[1:] for section in re.split(r"(?m)^(?=## )", text) if section.startswith(f"## {heading}\n")), None)


def build(target):
    """Builds the command and the benches' own programs, so that what is measured is what stands here."""
    root = HERE.parent
    subprocess.run([root / ".ci" / "own-target", root, target], check=True)
    cargo = ["cargo", "build", "--release", "--locked", "--workspace", "--bins"]
    if subprocess.run(cargo, cwd=root, env={**os.environ, "CARGO_TARGET_DIR": str(target)}).returncode:
        sys.exit("the build failed")


def commit():
    """The commit, and whether there is more than it holds. What benches wrote into RESULTS.md itself is none of it."""
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True).stdout.strip()

    more = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!RESULTS.md")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" and what was not committed then" if more else "")


def circumstances():
    """Commit, date and machine, as a sentence."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"Commit {commit()}, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} processors, {platform.machine()}, {memory:.0f} GiB."
