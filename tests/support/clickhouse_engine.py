"""The embedded engine behind clickhouse.py: a session for each request, and what runs by the ids that clients gave."""

import contextlib
import fcntl
import os
import queue
import re
import threading
import traceback
import uuid

from chdb.session import Session
from clickhouse_wire import PIECE, Refused, joined, tokens

# Columns by name at the end of an insert, and settings with which an insert from a file is another one, or is not found again by its mark.
LISTED = re.compile(rb"""\(\s*NAME(\s*,\s*NAME)*\s*\)\s*$""".replace(b"NAME", rb"""([A-Za-z_][A-Za-z0-9_.]*|`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*")"""), re.S)
UNLIKE = {"insert_allow_materialized_columns", "log_comment", "max_block_size", "max_insert_block_size", "max_insert_block_size_bytes",
          "parallelize_output_from_storages"}
F_SETPIPE_SZ = 1031  # Linux; Python names it from 3.10 on


def literal(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\0", "\\0") + "'"


def name(text):
    return "`" + text.replace("\\", "\\\\").replace("`", "\\`") + "`"


def pipe():
    read, write = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(read, F_SETPIPE_SZ, PIECE)  # a larger one costs fewer turns
    return read, write


def put(write, piece):
    """Writes the whole piece, unless nobody reads it any more."""
    piece = memoryview(piece)
    with contextlib.suppress(BrokenPipeError):
        while piece:
            piece = piece[os.write(write, piece):]


class Threads:
    """Threads that are used again: what the engine makes for a thread at its first statement costs as much as a short statement."""

    def __init__(self):
        self.idle = []

    def start(self, work):
        try:
            tasks = self.idle.pop()
        except IndexError:
            tasks = queue.SimpleQueue()
            threading.Thread(target=self._loop, args=(tasks,), daemon=True).start()
        tasks.put(work)

    def _loop(self, tasks):
        while True:
            try:
                tasks.get()()
            except Exception:
                traceback.print_exc()
            self.idle.append(tasks)


class Engine:
    """The engine of this process, and what runs in it by the ids of the clients."""

    SPARES = 4

    def __init__(self, path):
        self.path = path
        self.threads = Threads()
        self.spares = []  # (mark, session), each for one request to come
        self.control = Session(path)  # as long as it is open, the engine is
        self.control.query("SET output_format_parallel_formatting = 0, max_threads = 1", "TabSeparated")  # its answers are short
        self.lock = threading.Lock()
        self.control_lock = threading.Lock()
        self._default_as_on_a_server()
        self.running = {}  # mark -> Run
        self.version = self.ask("select version()").decode().strip().strip('"')
        self.zone = self.ask("select timezone()").decode().strip().strip('"')
        self.compresses = self.ask("select getSetting('enable_http_compression')").decode().strip()
        self.insert_rows = self.ask("select getSetting('max_insert_block_size')").decode().strip()

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
        try:
            spare = self.spares.pop()
        except IndexError:
            spare = self._spare()
        run = Run(self, query_id, *spare)
        with self.lock:
            if all(other.query_id != query_id for other in self.running.values()):
                self.running[run.mark] = run
                return run
        self.spares.append(spare)
        raise Refused(216, "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING", f"Query with id = {query_id} is already running")

    def refill(self):
        """Makes a session for a request to come, while the client is busy with the last one's answer."""
        if len(self.spares) < self.SPARES:
            self.spares.append(self._spare())

    def _spare(self):
        mark, session = f"http {uuid.uuid4()}", Session(self.path)
        # implicit_select belongs to clickhouse-local: a server takes "selec 1" for a mistake. Threads that format cost more than they gain in short
        # answers, and many formats know none.
        session.query(f"SET log_comment = {literal(mark)}, implicit_select = 0, output_format_parallel_formatting = 0", "TabSeparated")
        return mark, session

    def marked(self):
        """Engine's id -> mark of what runs. Rows are chosen here: a condition costs more than the whole of so short a table."""
        rows = self.ask("select query_id, Settings['log_comment'] from system.processes").decode().splitlines()
        return dict(row.split("\t") for row in rows)

    def ids(self):
        """Engine's id -> client's id of what runs."""
        marked = self.marked()
        with self.lock:
            marks = {mark: run.query_id for mark, run in self.running.items()}
        return {engine_id: marks[mark] for engine_id, mark in marked.items() if mark in marks}

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

    def __init__(self, engine, query_id, mark, session):
        self.engine, self.query_id, self.mark, self.session, self.killed = engine, query_id, mark, session, False

    def prepare(self, database, settings, parameters, readonly):
        self.by_file = UNLIKE.isdisjoint(key for key, _ in settings)
        pairs = [*settings, *((f"param_{key}", value) for key, value in parameters)]
        if pairs:
            self._own("SET " + ", ".join(f"{key if re.fullmatch('[A-Za-z0-9_]+', key) else name(key)} = {literal(value)}" for key, value in pairs))
        if database:
            self._own(f"USE {name(database)}")
        if readonly:
            self._own("SET readonly = 2")

    def _own(self, sql):
        self.session.query(sql, "TabSeparated")

    def end(self):
        with self.engine.lock:
            self.engine.running.pop(self.mark, None)
        self.session.close()

    def check_killed(self):
        if self.killed:
            raise Refused(394, "QUERY_WAS_CANCELLED", "Query was cancelled")

    def insert(self, statement, pieces, wire):
        """Hands the data to the engine as it arrives; whatever breaks before the end cancels the insert. Returns (rows, bytes).

        `wire`: the connection in whose socket the pieces stand as they are, or none.
        """
        if self.by_file and LISTED.search(statement.head):
            return self.insert_file(statement, pieces, wire)
        return self.insert_stream(statement, pieces)

    def insert_file(self, statement, pieces, wire):
        """The engine reads the data from a pipe as its own client reads a file. It tells every error, and costs less than a stream."""
        read, write = pipe()
        # Its client makes blocks of max_block_size, a server of max_insert_block_size; a file's blocks may overtake each other.
        like_a_server = f"SETTINGS max_block_size = {self.engine.insert_rows}, parallelize_output_from_storages = 0"
        infile = f"\nFROM INFILE '/proc/self/fd/{read}' COMPRESSION 'none' {like_a_server}\n"
        sql = f"{statement.head.decode('utf-8', 'surrogateescape')}{infile}FORMAT {statement.format}"
        outcome, done, whole = [], threading.Event(), False

        def work():
            try:
                outcome.append(self.session.query(sql, "TabSeparated"))
            except BaseException as error:
                outcome.append(error)
            finally:
                os.close(read)  # so that nobody waits for room in the pipe
                done.set()

        self.engine.threads.start(work)
        try:
            if wire:
                wire.pipe = write
            for piece in pieces:
                self.check_killed()
                if done.is_set():
                    break
                if not isinstance(piece, int):
                    put(write, piece)
            self.check_killed()
            whole = True
        finally:
            if wire:
                wire.pipe = None
            if not whole:
                self.cancel(done)  # before the pipe ends: that would be the end of the data
            os.close(write)
            done.wait()
        self.check_killed()
        if isinstance(outcome[0], BaseException):
            raise RuntimeError(self.of_a_request(str(outcome[0]).replace(infile, " ")))
        return outcome[0].rows_written(), outcome[0].bytes_written()

    @staticmethod
    def of_a_request(text):
        """An error's text without what the engine says of its file, and without what it says twice."""
        text = re.sub(r": \(in file/uri /proc/self/fd/\d+\)|: While executing File: data for INSERT was parsed from file", "", text)
        return re.sub(r"(?s)^(Code: \d+\. DB::Exception: )\1(.* \(\w+\)) \(version [^()]*(?:\([^()]*\))?\)\. \(\w+\)\s*$", r"\1\2", text)

    def insert_stream(self, statement, pieces):
        """The engine takes the data in pieces."""
        stream = self.session.send_insert(statement.head.decode("utf-8", "surrogateescape").rstrip().rstrip(";"), statement.format)
        try:
            for piece in joined(pieces):
                self.check_killed()
                stream.append(piece)
            self.check_killed()
            engine_id = self.engine_id()
            done = stream.finish()
        except BaseException:
            with contextlib.suppress(Exception):
                stream.cancel()
            self.check_killed()
            raise
        self.check_killed()
        self.check_swallowed(engine_id, statement)
        return done.rows_written, done.bytes_written

    def engine_id(self):
        """The engine's id of what runs here; empty when nothing does."""
        return next((engine_id for engine_id, mark in self.engine.marked().items() if mark == self.mark), "")

    def check_swallowed(self, engine_id, statement):
        """The engine's streamed insert keeps silent about what fails where the rows go: a constraint, a disk without room. It counts the error, though,
        under the id of its query; errors of VALUES are also counted where the parser only tries one way of several."""
        if not engine_id or engine_id not in self.engine.ask("select query_id from system.errors").decode().splitlines():
            return
        only = " and code in (241, 243, 252, 349, 469)" if statement.format == "Values" else ""
        found = self.engine.ask(f"select code, name, last_error_message from system.errors where query_id = {literal(engine_id)}{only} limit 1").decode().rstrip("\n")
        if found:
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

    def cancel(self, done):
        """Kills the statement as soon as it runs, unless it has ended."""
        while not done.is_set():
            if engine_id := self.engine_id():
                self.engine.ask(f"KILL QUERY WHERE query_id = {literal(engine_id)} ASYNC")
                return
            done.wait(0.01)

    def stop(self, done):
        """Waits for a query whose result nobody reads any more, which usually has ended; otherwise kills it, as a failed write to its client would."""
        ended = done.wait(0.02)
        while not ended:
            self.cancel(done)
            ended = done.wait(0.1)

    def rows(self, statement, sink):
        """Runs a query, giving `sink` its bytes as they are made: through a pipe, so that the engine waits for a slow client."""
        text = statement.before
        if re.search(rb"(?i)system\s*\.\s*processes", text):
            walk = list(tokens(text))
            for (_, schema, start, _, _), (_, dot, _, _, _), (_, table, _, end, _) in reversed(list(zip(walk, walk[1:], walk[2:]))):
                if (schema, dot, table) == (b"SYSTEM", b".", b"PROCESSES"):
                    text = text[:start] + self.engine.processes(False).encode() + text[end:]
        read, write = pipe()
        into = f"\nINTO OUTFILE '/proc/self/fd/{write}' APPEND FORMAT {statement.format} "
        sql = text.decode("utf-8", "surrogateescape") + into + statement.after.decode("utf-8", "surrogateescape")
        failed, done = [], threading.Event()

        def work():
            try:
                self.session.query(sql, statement.format)
            except BaseException as error:
                failed.append(error)
            finally:
                os.close(write)
                done.set()

        self.engine.threads.start(work)
        try:
            while True:
                piece = os.read(read, PIECE)
                if not piece:
                    break
                sink(piece)
        finally:
            os.close(read)
            self.stop(done)
        self.check_killed()
        if failed:
            raise type(failed[0])(str(failed[0]).replace(into, f" FORMAT {statement.format}"))
