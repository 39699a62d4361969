"""A command on a terminal of its own: what a person types, and what the screen shows.

terminal.py COLUMNS LINES COMMAND…: reads a JSON list of steps from standard input, each {"type": TEXT}, {"wait": TEXT} or {"pause": SECONDS}, and
makes them in order. "wait" goes on when the text has been shown after all that was waited for before. Writes all that was shown, without the escapes that move the
cursor or paint, and ends as the command does; with 98 where a text was waited for in vain, 99 where the command does not end.
"""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

PATIENCE_S = 30
ESCAPES = re.compile(rb"\x1b\[[0-9;?>=]*[A-Za-z]|\x1b[=>]|\x1b\][^\x07]*\x07|\r(?=\n)")


class Terminal:
    def __init__(self, columns, lines, command):
        self.child, self.side = pty.fork()
        if self.child == 0:
            os.execvp(command[0], command)
        fcntl.ioctl(self.side, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.shown, self.seen = b"", 0

    def text(self):
        return ESCAPES.sub(b"", self.shown).decode(errors="replace")

    def read(self, seconds):
        """Takes what is shown within so many seconds; False when the command is gone."""
        if not select.select([self.side], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.side, 65536)
        except OSError:
            return False
        self.shown += data
        return bool(data)

    def wait(self, wanted):
        until = time.monotonic() + PATIENCE_S
        while True:
            text = self.text()
            at = text.find(wanted, self.seen)
            if at >= 0:
                self.seen = at + len(wanted)
                return True
            if time.monotonic() > until or not self.read(0.1):
                return False

    def end(self):
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            more = self.read(0.05)
            ended, status = os.waitpid(self.child, os.WNOHANG)
            if ended:
                while self.read(0) and select.select([self.side], [], [], 0)[0]:
                    pass
                return os.waitstatus_to_exitcode(status)
            if not more:
                time.sleep(0.02)
        os.kill(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)
        return 99


def main():
    terminal = Terminal(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
    code = None
    for step in json.load(sys.stdin):
        if "type" in step:
            os.write(terminal.side, step["type"].encode())
        elif "pause" in step:
            until = time.monotonic() + step["pause"]
            while time.monotonic() < until and terminal.read(0.05):
                pass
        elif not terminal.wait(step["wait"]):
            print(terminal.text())
            print(f"\nnot shown: {step['wait']!r}", file=sys.stderr)
            os.kill(terminal.child, signal.SIGKILL)
            os.waitpid(terminal.child, 0)
            sys.exit(98)
    code = terminal.end()
    print(terminal.text())
    sys.exit(code if code >= 0 else 128 - code)


main()
