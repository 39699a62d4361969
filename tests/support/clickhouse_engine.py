"""The embedded engine behind clickhouse.py: a session for each request, and what runs by the ids that clients gave."""

import contextlib
import fcntl
import os
import re
import threading
import uuid

from chdb.session import Session
from clickhouse_wire import PIECE, Refused, joined, tokens

F_SETPIPE_SZ = 1031  # Linux; Python names it from 3.10 on


def literal(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\0", "\\0") + "'"


def name(text):
    return "`" + text.replace("\\", "\\\\").replace("`", "\\`") + "`"


class Engine:
    """The engine of this process, and what runs in it by the ids of the clients."""

    def __init__(self, path):
        self.path = path
        self.control = Session(path)  # as long as it is open, the engine is
        self.lock = threading.Lock()
        self.control_lock = threading.Lock()
        self._default_as_on_a_server()
        self.running = {}  # mark -> Run
        self.version = self.ask("select version()").decode().strip().strip('"')
        self.zone = self.ask("select timezone()").decode().strip().strip('"')
        self.compresses = self.ask("select getSetting('enable_http_compression')").decode().strip()

    def _default_as_on_a_server(self):
        """The engine opens "default" as an overlay that shows files as tables and hides the tables' UUIDs; a server's is an Atomic database."""
        file = os.path.join(self.path, "metadata", "default.sql")
        tables = self.ask("select count() from system.tables where database = 'default'").strip()
        if tables != b"0":
            statements = ("DETACH DATABASE default", "ATTACH DATABASE default")
        else:
            # An empty one that was Atomic before cannot be attached again ("Cannot find UUID mapping"): it is made anew.
            statements = ("DROP DATABASE IF EXISTS default SYNC", "CREATE DATABASE default ENGINE = Atomic")
            with contextlib.suppress(FileNotFoundError):
                os.remove(file)
        for sql in statements:
            self.ask(sql)

    def ask(self, sql):
        """Rows of one of the front's own questions, tab separated."""
        with self.control_lock:
            return self.control.query(sql, "TabSeparated").bytes()

    def begin(self, query_id):
        run = Run(self, query_id)
        with self.lock:
            if any(other.query_id == query_id for other in self.running.values()):
                raise Refused(216, "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING", f"Query with id = {query_id} is already running")
            self.running[run.mark] = run
        return run

    def ids(self):
        """Engine's id -> client's id of what runs."""
        rows = self.ask("select query_id, Settings['log_comment'] from system.processes").decode().splitlines()
        with self.lock:
            marks = {mark: run.query_id for mark, run in self.running.items()}
        pairs = (row.split("\t") for row in rows)
        return {pair[0]: marks[pair[1]] for pair in pairs if len(pair) == 2 and pair[1] in marks}

    def processes(self, ours_too):
        """`system.processes` with the clients' ids in it; on request, `engine_id` keeps the engine's."""
        ids = self.ids()
        ours, theirs = ", ".join(map(literal, ids)), ", ".join(map(literal, ids.values()))
        named = f"transform(query_id, [{ours}], [{theirs}], query_id)" if ids else "query_id"
        columns = "*" if ours_too else "* EXCEPT (engine_id)"
        return (f"(SELECT {columns} REPLACE ({named} AS query_id, {named} AS initial_query_id) FROM "
                "(SELECT *, toString(system.processes.query_id) AS engine_id FROM system.processes))")

    def killed(self, ids):
        with self.lock:
            for run in self.running.values():
                if run.query_id in ids:
                    run.killed = True


class Run:
    """One request's statement in a session of its own, found in system.processes by its mark."""

    def __init__(self, engine, query_id):
        self.engine, self.query_id, self.mark, self.killed = engine, query_id, f"http {uuid.uuid4()}", False
        self.session = None

    def prepare(self, database, settings, parameters, readonly):
        self.session = Session(self.engine.path)
        # implicit_select belongs to clickhouse-local: a server takes "selec 1" for a mistake.
        pairs = [("log_comment", self.mark), ("implicit_select", "0"), *settings]
        self._own("SET " + ", ".join(f"{key if re.fullmatch('[A-Za-z0-9_]+', key) else name(key)} = {literal(value)}" for key, value in pairs))
        for key, value in parameters:
            self._own(f"SET param_{key} = {literal(value)}")
        if database:
            self._own(f"USE {name(database)}")
        if readonly:
            self._own("SET readonly = 2")

    def _own(self, sql):
        self.session.query(sql, "TabSeparated")

    def end(self):
        with self.engine.lock:
            self.engine.running.pop(self.mark, None)
        if self.session is not None:
            self.session.close()
            self.session = None

    def check_killed(self):
        if self.killed:
            raise Refused(394, "QUERY_WAS_CANCELLED", "Query was cancelled")

    def insert(self, statement, pieces):
        """Hands the data to the engine as it arrives; whatever breaks before the end cancels the insert. Returns (rows, bytes)."""
        stream = self.session.send_insert(statement.head.decode("utf-8", "surrogateescape").rstrip().rstrip(";"), statement.format)
        try:
            for piece in joined(pieces):
                self.check_killed()
                stream.append(piece)
            self.check_killed()
            mark = literal(self.mark)
            engine_id = self.engine.ask(f"select query_id from system.processes where Settings['log_comment'] = {mark} limit 1").decode().strip()
            done = stream.finish()
        except BaseException:
            with contextlib.suppress(Exception):
                stream.cancel()
            self.check_killed()
            raise
        self.check_killed()
        self.check_swallowed(engine_id, statement)
        return done.rows_written, done.bytes_written

    def check_swallowed(self, engine_id, statement):
        """The engine's streamed insert keeps silent about what fails where the rows go: a constraint, a disk without room. It counts the error, though,
        under the id of its query; errors of VALUES are also counted where the parser only tries one way of several."""
        only = " and code in (241, 243, 252, 349, 469)" if statement.format == "Values" else ""
        found = self.engine.ask(f"select code, name, last_error_message from system.errors where query_id = {literal(engine_id)}{only} limit 1").decode().rstrip("\n")
        if engine_id and found:
            code, error, message = found.split("\t", 2)
            raise Refused(int(code), error, message.replace("\\'", "'").replace("\\n", "\n").replace("\\\\", "\\"))

    def other(self, statement):
        """Any statement whose answer is small; returns it whole."""
        text = statement.text
        if statement.kind == "kill":
            return self.kill(text, statement.format)
        return self.session.query(text.decode("utf-8", "surrogateescape"), statement.format)

    def kill(self, text, format):
        match = re.match(rb"(?is)\s*KILL\s+QUERY\s+WHERE\s+(.*?)(\s+(?:SYNC|ASYNC|TEST))?\s*(?:\bFORMAT\s+\w+\s*)?$", text)
        if not match:
            return self.session.query(text.decode(), format)  # KILL MUTATION, or a mistake
        where, how = match.group(1).decode(), (match.group(2) or b"").decode()
        found = self.session.query(f"SELECT engine_id, query_id FROM {self.engine.processes(True)} WHERE ({where}) AND Settings['log_comment'] != "
                                   f"{literal(self.mark)}", "TabSeparated").bytes().decode().splitlines()
        pairs = [row.split("\t") for row in found]
        if how.strip().upper() != "TEST":
            self.engine.killed({pair[1] for pair in pairs})
        ids = ", ".join(literal(pair[0]) for pair in pairs) or "''"
        return self.session.query(f"KILL QUERY WHERE query_id IN ({ids}){how}", format)

    def stop(self, worker):
        """Waits for a query whose result nobody reads any more, which usually has ended; otherwise kills it, as a failed write to its client would."""
        worker.join(0.02)
        while worker.is_alive():
            for row in self.engine.ask("select query_id, Settings['log_comment'] from system.processes").decode().splitlines():
                if row.endswith("\t" + self.mark):
                    self.engine.ask(f"KILL QUERY WHERE query_id = {literal(row.split(chr(9))[0])} ASYNC")
            worker.join(0.1)

    def rows(self, statement, sink):
        """Runs a query, giving `sink` its bytes as they are made: through a pipe, so that the engine waits for a slow client."""
        text = statement.before
        if re.search(rb"(?i)system\s*\.\s*processes", text):
            walk = list(tokens(text))
            for (_, schema, start, _, _), (_, dot, _, _, _), (_, table, _, end, _) in reversed(list(zip(walk, walk[1:], walk[2:]))):
                if (schema, dot, table) == (b"SYSTEM", b".", b"PROCESSES"):
                    text = text[:start] + self.engine.processes(False).encode() + text[end:]
        read, write = os.pipe()
        with contextlib.suppress(OSError):
            fcntl.fcntl(read, F_SETPIPE_SZ, PIECE)  # a larger pipe costs fewer turns
        into = f"\nINTO OUTFILE '/proc/self/fd/{write}' APPEND FORMAT {statement.format} "
        sql = text.decode("utf-8", "surrogateescape") + into + statement.after.decode("utf-8", "surrogateescape")
        failed = []

        def work():
            try:
                self.session.query(sql, statement.format)
            except BaseException as error:
                failed.append(error)
            finally:
                os.close(write)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        try:
            while True:
                piece = os.read(read, PIECE)
                if not piece:
                    break
                sink(piece)
        finally:
            os.close(read)
            self.stop(worker)
        self.check_killed()
        if failed:
            raise type(failed[0])(str(failed[0]).replace(into, f" FORMAT {statement.format}"))
