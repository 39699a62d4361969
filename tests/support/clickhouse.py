"""ClickHouse's HTTP interface over one embedded ClickHouse engine (chdb), in a process of its own.

  clickhouse.py --data DIR [--port N] [--port-file F] [--user U --password P] [--tls CERT KEY [--client-ca CA]] [--log F]

No registry carries a current ClickHouse server, but PyPI's chdb-core carries its engine: tables, merges, mutations, functions, formats and errors
behind this front are the real ones. What stands here is HTTP only, after ClickHouse's HTTPHandler: where statements, data, settings, parameters and
credentials stand in a request, which status an error has, how a result that fails halfway ends. Requests run side by side, each in an engine session
of its own; a body is handed to the engine as it arrives, a result is sent as it is made. The process may be killed at any instant and started again
on the same folder and port; /ping answers as soon as statements do.

Known differences from a server: `session_id` is accepted and means nothing (SET and temporary tables end with the request); one user; results in
ClickHouse's own compressed blocks (compress=1) and external tables are refused; `KILL QUERY` and `system.processes` know the ids that clients gave;
X-ClickHouse-Summary counts the rows of an insert with data and nothing else; INSERT … SELECT FROM input() is refused. Of inserts
with data, those that name their columns are told every error; of others that fail where the rows go (a constraint, a full disk), one may be told as
made when another statement fails for the same reason in the same moment.
"""

import argparse
import base64
import email.parser
import email.policy
import functools
import json
import os
import re
import secrets
import signal
import socket
import ssl
import tempfile
import time
import traceback
import urllib.parse
import uuid

from clickhouse_engine import Engine
from clickhouse_wire import HEAD_MAX, PIECE, Cut, Refused, Statement, Wire, blocks, decoded, encoder

STATEMENT_MAX = 64 << 20  # bytes of a statement without data

# Parameters of the URL that belong to HTTP and are no settings (HTTPHandler::reserved_param_names and what it reads itself).
RESERVED = {
    "compress", "decompress", "user", "password", "quota_key", "query_id", "stacktrace", "role", "buffer_size", "wait_end_of_query",
    "session_id", "session_timeout", "session_check", "client_protocol_version", "close_session", "query", "database", "default_format",
    "http_write_exception_in_output_format", "send_progress_in_http_headers", "replace_running_query",
}

# exceptionCodeToHTTPStatus
STATUS = {194: 401, 192: 403, 193: 403, 516: 403, 511: 403, 159: 408, 381: 411, 48: 501, 209: 503, 76: 503, 439: 503, 241: 500, 229: 413}
STATUS.update(dict.fromkeys((36, 427, 6, 25, 26, 27, 38, 41, 72, 43, 44, 45, 62, 53, 69, 117, 167, 168, 191, 635), 400))
STATUS.update(dict.fromkeys((60, 46, 47, 50, 56, 81, 115, 142, 63, 73, 336, 78, 180), 404))
REASON = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
          408: "Request Timeout", 411: "Length Required", 413: "Request Entity Too Large", 500: "Internal Server Error",
          501: "Not Implemented", 503: "Service Unavailable"}
TYPES = {"JSON": "application/json; charset=UTF-8", "JSONCompact": "application/json; charset=UTF-8", "JSONEachRow": "application/x-ndjson; charset=UTF-8",
         "CSV": "text/csv; charset=UTF-8; header=absent", "CSVWithNames": "text/csv; charset=UTF-8; header=present",
         "TabSeparated": "text/tab-separated-values; charset=UTF-8", "TabSeparatedWithNames": "text/tab-separated-values; charset=UTF-8",
         "Pretty": "text/plain; charset=UTF-8", "Parquet": "application/octet-stream", "ArrowStream": "application/octet-stream"}


# ---------------------------------------------------------------- requests

class Request:
    """A request's head, its parameters, and its body in pieces."""

    def __init__(self, wire, first):
        self.wire = wire
        try:
            self.method, target, self.protocol = first.decode("latin-1").split(" ")
        except ValueError:
            raise Cut(f"no request line: {first[:80]!r}") from None
        self.headers = {}
        while True:
            line = wire.line()
            if not line:
                break
            key, _, value = line.decode("latin-1").partition(":")
            self.headers[key.strip().lower()] = value.strip()
        url = urllib.parse.urlsplit(target)
        self.path = url.path
        self.pairs = urllib.parse.parse_qsl(url.query, keep_blank_values=True, errors="surrogateescape")
        self.parameters = dict(self.pairs)
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            self.pieces, self.has_body = wire.chunked(), True
        else:
            length = int(self.headers.get("content-length") or 0)
            self.pieces, self.has_body = wire.counted(length), length > 0
        self.expects = self.headers.get("expect", "").lower() == "100-continue"
        # True where the socket holds the body's bytes themselves.
        self.as_it_is = (self.headers.get("content-encoding", "").lower() in ("", "identity") and self.parameters.get("decompress") != "1"
                         and not isinstance(wire.sock, ssl.SSLSocket))
        self.keeps = self.headers.get("connection", "").lower() != "close" and self.protocol == "HTTP/1.1"

    def body(self):
        """The body freed of its encodings."""
        if self.expects:
            self.wire.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.expects = False
        pieces = decoded(self.pieces, self.headers.get("content-encoding", "").lower())
        return blocks(pieces) if self.parameters.get("decompress") == "1" else pieces

    def form(self):
        """Parameters of a multipart body join those of the URL."""
        content = self.headers.get("content-type", "")
        if not content.lower().startswith("multipart/form-data"):
            return
        whole = b"".join(self.body())
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(b"Content-Type: " + content.encode() + b"\r\n\r\n" + whole)
        for part in message.iter_parts():
            if part.get_filename():
                raise Refused(48, "NOT_IMPLEMENTED", "External tables are not part of the tests' front")
            key = part.get_param("name", header="content-disposition")
            value = part.get_payload(decode=True).decode("utf-8", "surrogateescape")
            self.pairs.append((key, value))
            self.parameters[key] = value
        self.pieces, self.has_body = iter(()), False

    def credentials(self):
        user, password = self.headers.get("x-clickhouse-user"), self.headers.get("x-clickhouse-key")
        if user is None and password is None:
            basic = self.headers.get("authorization", "")
            if basic.lower().startswith("basic "):
                user, _, password = base64.b64decode(basic[6:]).decode("utf-8", "replace").partition(":")
            else:
                user, password = self.parameters.get("user"), self.parameters.get("password")
        return user or "default", password or ""


class Answer:
    """Sends a result: the head with the first megabyte or the end, then chunks; an error after that ends the connection in the middle."""

    def __init__(self, request, engine, format, query_id, wait, encoding):
        self.request, self.format, self.wait = request, format, wait
        self.encoding = encoding
        self.have, self.size, self.begun, self.tag = [], 0, False, secrets.token_hex(8)
        self.file = tempfile.SpooledTemporaryFile(PIECE) if wait else None
        self.headers = [("X-ClickHouse-Query-Id", query_id), ("X-ClickHouse-Server-Display-Name", "weir-tests"), ("X-ClickHouse-Format", format),
                        ("X-ClickHouse-Timezone", engine.zone)]
        self.started, self.rows_written, self.bytes_written, self.sent = time.monotonic(), 0, 0, 0

    def write(self, piece):
        self.sent += len(piece)
        if self.file:
            self.file.write(piece)
            return
        if self.encoding:
            piece = self.encoding[1](piece)
        self.have.append(piece)
        self.size += len(piece)
        if self.size >= PIECE or self.begun and self.size:
            self._flush(False)

    def _head(self, status, more):
        lines = [f"HTTP/1.1 {status} {REASON[status]}", f"Date: {time.strftime('%a, %d %b %Y %H:%M:%S GMT', time.gmtime())}",
                 "Connection: " + ("keep-alive" if self.request.keeps else "close")]
        summary = {"read_rows": "0", "read_bytes": "0", "written_rows": str(self.rows_written), "written_bytes": str(self.bytes_written),
                   "total_rows_to_read": "0", "result_rows": str(self.rows_written), "result_bytes": str(self.bytes_written),
                   "elapsed_ns": str(int((time.monotonic() - self.started) * 1e9))}
        lines += [f"{key}: {value}" for key, value in self.headers + more]
        lines.append("X-ClickHouse-Summary: " + json.dumps(summary, separators=(",", ":")))
        if self.request.keeps:
            lines.append("Keep-Alive: timeout=30, max=9999")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def _flush(self, last):
        data, self.have, self.size = b"".join(self.have), [], 0
        out = b""
        if not self.begun:
            self.begun = True
            more = [("Content-Type", TYPES.get(self.format, "text/plain; charset=UTF-8")), ("X-ClickHouse-Exception-Tag", self.tag)]
            if self.encoding:
                more.append(("Content-Encoding", self.encoding[0]))
            out = self._head(200, more + [("Transfer-Encoding", "chunked")])
        if data:
            out += b"%x\r\n" % len(data)
            self.request.wire.sock.sendall(out + data + b"\r\n" if len(data) < 65536 else out)
            if len(data) >= 65536:
                self.request.wire.sock.sendall(data)
                self.request.wire.sock.sendall(b"\r\n")
            out = b""
        if last:
            out += b"0\r\n\r\n"
        if out:
            self.request.wire.sock.sendall(out)

    def end(self):
        if self.file:
            self.file.seek(0)
            file, self.file = self.file, None
            while piece := file.read(PIECE):
                self.write(piece)
        if self.encoding:
            self.have.append(self.encoding[2]())
        self._flush(True)

    def fail(self, error):
        """An exception: as the whole answer while nothing is sent, as the end of the data otherwise. True if the connection may go on."""
        text = message(error)
        code = int(re.match(r"Code: (\d+)", text).group(1))
        if not self.begun:
            data = text.encode("utf-8", "surrogateescape") + b"\n"
            more = [("Content-Type", "text/plain; charset=UTF-8"), ("X-ClickHouse-Exception-Code", str(code)), ("Content-Length", str(len(data)))]
            head = self._head(STATUS.get(code, 500), more)
            self.request.wire.sock.sendall(head + data)
            return True
        body = text.encode("utf-8", "surrogateescape") + b"\n"
        frame = b"\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n" % (self.tag.encode(), body, len(body), self.tag.encode())
        if self.encoding:
            frame = self.encoding[1](frame) + self.encoding[2]()
        # The chunks do not end properly: a client that looks at nothing else sees a broken body.
        self.request.wire.sock.sendall(b"%x\r\n" % len(frame) + frame + b"\r\n")
        return False


def message(error):
    """ClickHouse's text of an error of the engine."""
    text = str(error)
    at = text.find("Code: ")
    if at < 0:
        text = f"Code: 1002. DB::Exception: {type(error).__name__}: {text}. (UNKNOWN_EXCEPTION)"
        at = 0
    text = text[at:].rstrip()
    text = re.sub(r" \(version [^()]*(\([^()]*\))?\)$", "", text)
    return f"{text} (version {VERSION} (official build))"


VERSION = "unknown"


class Server:
    def __init__(self, options):
        global VERSION
        self.options = options
        self.engine = Engine(options.data)
        VERSION = self.engine.version
        self.log = open(options.log, "a", buffering=1, encoding="utf-8", errors="backslashreplace") if options.log else None
        self.tls = None
        if options.tls:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*options.tls)
            if options.client_ca:
                self.tls.verify_mode = ssl.CERT_REQUIRED
                self.tls.load_verify_locations(options.client_ca)

    def serve(self):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.options.port))
        listener.listen(256)
        if self.options.port_file:
            with open(self.options.port_file + ".new", "w", encoding="ascii") as file:
                file.write(str(listener.getsockname()[1]))
            os.replace(self.options.port_file + ".new", self.options.port_file)
        while True:
            sock, _ = listener.accept()
            self.engine.threads.start(functools.partial(self.connection, sock))

    def connection(self, sock):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(300)
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_side=True)
            wire = Wire(sock)
            while True:
                first = wire.line()
                if not first or not self.request(wire, first):
                    break
                self.engine.refill()
        except (Cut, OSError):
            pass
        except Exception:
            traceback.print_exc()
        finally:
            self.linger(sock)

    @staticmethod
    def linger(sock):
        """Closes so that an answer already sent reaches a client that is still sending."""
        try:
            if not isinstance(sock, ssl.SSLSocket):
                sock.shutdown(socket.SHUT_WR)
                sock.settimeout(1)
                until = time.monotonic() + 3
                while time.monotonic() < until and sock.recv(PIECE):
                    pass
        except OSError:
            pass
        sock.close()

    def request(self, wire, first):
        """Answers one request; true if another may follow on the connection."""
        request = Request(wire, first)
        if request.path != "/" and request.path != "":
            known = {"/ping": b"Ok.\n", "/replicas_status": b"Ok.\n"}
            return self.plain(request, 200 if request.path in known else 404,
                              known.get(request.path, b"There is no handle %s\nUse / or /ping for health checks.\n" % request.path.encode()))
        if request.method not in ("GET", "POST", "PUT", "HEAD"):
            return self.plain(request, 405, b"")
        if request.method == "GET" and not request.parameters and not request.has_body:
            return self.plain(request, 200, b"Ok.\n")
        return self.statement(request)

    def plain(self, request, status, data):
        head = f"HTTP/1.1 {status} {REASON[status]}\r\nContent-Type: text/html; charset=UTF-8\r\nContent-Length: {len(data)}\r\n\r\n"
        for _ in request.pieces:
            pass
        request.wire.sock.sendall(head.encode() + (b"" if request.method == "HEAD" else data))
        return request.keeps

    def statement(self, request):
        parameters = request.parameters
        query_id = parameters.get("query_id") or request.headers.get("x-clickhouse-query-id") or str(uuid.uuid4())
        format = parameters.get("default_format") or request.headers.get("x-clickhouse-format") or "TabSeparated"
        answer = Answer(request, self.engine, format, query_id, False, None)
        run, text, since = None, b"", time.monotonic()
        outcome = "ok"
        try:
            try:
                request.form()
                user, password = request.credentials()
                if user != self.options.user or not secrets.compare_digest(password.encode(), self.options.password.encode()):
                    raise Refused(516, "AUTHENTICATION_FAILED", f"{user}: Authentication failed: password is incorrect, or there is no user with such name")
                if parameters.get("compress") == "1":
                    raise Refused(48, "NOT_IMPLEMENTED", "compress=1 is not part of the tests' front: use HTTP compression")
                statement, pieces = self.parse(request, format)
                text = statement.text
                wait = parameters.get("wait_end_of_query") in ("1", "true")
                encoding = None
                if parameters.get("enable_http_compression", self.engine.compresses) in ("1", "true"):
                    encoding = encoder(request.headers.get("accept-encoding", ""))
                answer = Answer(request, self.engine, statement.format if statement.kind != "insert" else format, query_id, wait, encoding)
                run = self.engine.begin(query_id)
                settings = [(key, value) for key, value in request.pairs if key not in RESERVED and not key.startswith("param_")]
                values = [(key[6:], value) for key, value in request.pairs if key.startswith("param_")]
                database = parameters.get("database") or request.headers.get("x-clickhouse-database")
                run.prepare(database, settings, values, request.method == "GET")
                if statement.kind == "insert":
                    if request.method == "GET":
                        raise Refused(164, "READONLY", "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. "
                                                       "You should use method POST for modifying queries")
                    answer.rows_written, answer.bytes_written = run.insert(statement, pieces, request.wire if request.as_it_is else None)
                elif statement.kind == "rows":
                    run.rows(statement, answer.write)
                else:
                    answer.write(run.other(statement).bytes() or b"")
            finally:
                if run:
                    run.end()
            for _ in request.pieces:
                pass
            answer.end()
            return request.keeps
        except (Cut, OSError) as error:
            outcome = f"client gone: {error}"
            return False
        except Exception as error:
            outcome = message(error)
            # What is left of a short body is read, so that the connection can go on; a long one ends it.
            left = self.drain(request)
            request.keeps = request.keeps and left
            return answer.fail(error) and request.keeps
        finally:
            if self.log:
                took = (time.monotonic() - since) * 1e3
                shown = text[:400].decode("utf-8", "replace").replace("\n", " ")
                self.log.write(f"{time.strftime('%H:%M:%S')} {took:8.1f} ms {query_id} {shown} -> {outcome[:300]}\n")

    @staticmethod
    def drain(request):
        if request.expects:
            return False
        size, sock = 0, request.wire.sock
        try:
            sock.settimeout(0.5)
            for piece in request.pieces:
                size += len(piece)
                if size > PIECE:
                    return False
            return True
        except (Cut, OSError):
            return False
        finally:
            sock.settimeout(300)

    def parse(self, request, format):
        """The statement, and the pieces of data that follow it."""
        given = request.parameters.get("query")
        body = request.body()
        if given is not None:
            text = given.encode("utf-8", "surrogateescape")
            if request.has_body or request.headers.get("transfer-encoding"):
                statement = Statement(text, format)
                if statement.kind == "insert":
                    rest = text[statement.data:]
                    # The server reads the URL's statement, a line end, and the body as one text.
                    return statement, self.after(rest + b"\n" if rest.strip() else b"", body)
                if statement.kind == "select-insert":
                    raise Refused(48, "NOT_IMPLEMENTED", "INSERT … SELECT FROM input() is not part of the tests' front")
                more = b"".join(body)
                return (Statement(text + b"\n" + more, format) if more.strip() else statement), iter(())
            statement = Statement(text, format)
            return statement, self.after(text[statement.data:], iter(())) if statement.kind == "insert" else iter(())
        text, size = [], 0
        for piece in body:
            text.append(piece)
            size += len(piece)
            if size >= HEAD_MAX:
                break
        text = b"".join(text)
        statement = Statement(text, format) if text[:HEAD_MAX].lstrip()[:6].upper() == b"INSERT" or size < HEAD_MAX else None
        if statement is not None and statement.kind == "insert":
            if statement.data > HEAD_MAX:
                raise Refused(62, "SYNTAX_ERROR", "Syntax error: Max query size exceeded")
            return statement, self.after(text[statement.data:], body)
        for piece in body:
            text += piece
            if len(text) > STATEMENT_MAX:
                raise Refused(62, "SYNTAX_ERROR", "Syntax error: Max query size exceeded")
        return Statement(text, format), iter(())

    @staticmethod
    def after(first, pieces):
        if first:
            yield first
        yield from pieces


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--data", required=True, help="the engine's folder")
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--port-file", help="written when requests are answered")
    options.add_argument("--user", default="default")
    options.add_argument("--password", default="")
    options.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    options.add_argument("--client-ca", help="clients must show a certificate of this CA")
    options.add_argument("--log", help="one line per statement")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    Server(options.parse_args()).serve()


main()
