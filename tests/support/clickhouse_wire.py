"""What clickhouse.py reads from and writes to a connection: ClickHouse statements as far as HTTP must know them, bodies, their encodings."""

import os
import re
import select
import struct
import zlib

PIECE = 1 << 20  # bytes handed on at a time, in both directions
HEAD_MAX = 1 << 18  # where the statement before an insert's data must have ended (ClickHouse's max_query_size)


class Refused(Exception):
    """A request that ends with this exception: ClickHouse's number, its name, the text."""

    def __init__(self, code, name, text):
        super().__init__(f"Code: {code}. DB::Exception: {text}. ({name})")


class Cut(Exception):
    """The client went away in the middle of its request, or sent something that is no HTTP."""


# ---------------------------------------------------------------- statements

TOKEN = re.compile(rb"""
    (?P<space>\s+|--[^\n]*|\#[!\ ][^\n]*|/\*.*?\*/)
  | (?P<quoted>'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
  | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<other>[0-9][A-Za-z0-9_.]*|.)
""", re.X | re.S)


def tokens(text):
    """Yields (kind, word in upper case or bytes, start, end, depth of brackets) without spaces and comments."""
    depth = 0
    for match in TOKEN.finditer(text):
        kind = match.lastgroup if match.lastgroup != "tag" else "quoted"
        if kind == "space":
            continue
        value = match.group()
        if kind == "other" and value in b")]}":
            depth -= 1
        yield kind, value.upper() if kind == "word" else value, match.start(), match.end(), depth
        if kind == "other" and value in b"([{":
            depth += 1


class Statement:
    """What a statement is, as far as HTTP must know it: an insert with data behind it, a query with rows, or anything else.

    `kind`: insert, rows, kill, other. `head`: the insert without FORMAT and data. `data`: where its data begins. `format`: named in it, or none.
    """

    def __init__(self, text, default_format):
        self.text, self.format, self.data, self.kind, self.head = text, None, None, "other", text
        self.ended = False
        walk = list(self._first(text))
        if not walk:
            raise Refused(62, "SYNTAX_ERROR", "Syntax error: Empty query")
        first = walk[0][1]
        if first == b"INSERT":
            self._insert(text)
            if self.kind == "insert":
                return
        self._end(text, default_format)
        if self.kind == "other" and first in (b"SELECT", b"WITH", b"("):
            self.kind = "rows"
        elif first == b"KILL":
            self.kind = "kill"

    @staticmethod
    def _first(text):
        for token in tokens(text):
            yield token
            return

    def _insert(self, text):
        before = None
        for kind, value, start, end, depth in tokens(text):
            if depth == 0 and kind == "word":
                if before and before[0] == b"FORMAT" and before[1] == "word":
                    self._data(text, before[2], text[start:end].decode(), end)
                    return
                if value in (b"SELECT", b"WITH", b"WATCH") and before and before[0] not in (b"INTO", b"TABLE", b"."):
                    self.kind = "select-insert"
                    return
                if value == b"VALUES" and before and before[0] not in (b"INTO", b"TABLE", b"."):
                    self._data(text, start, "Values", end)
                    return
                if value == b"INFILE" and before and before[0] == b"FROM":
                    raise Refused(78, "UNKNOWN_TYPE_OF_QUERY", "Query has infile and was send directly to server")
            elif depth == 0 and value == b"(" and before and before[0] == b"INTO":
                return
            elif depth == 1 and kind == "word" and value in (b"SELECT", b"WITH") and before and before[0] == b"(":
                self.kind = "select-insert"
                return
            before = (value, kind, start)
        # No FORMAT and no VALUES: values follow.
        self._data(text, len(text), "Values", len(text))

    def _data(self, text, head_end, format, data):
        # ParserInsertQuery: spaces, then at most one line end, belong to the statement.
        while data < len(text) and text[data:data + 1] in (b" ", b"\t", b"\f"):
            data += 1
        if text[data:data + 1] == b"\r":
            data += 1
        if text[data:data + 1] == b"\n":
            data += 1
        self.kind, self.format, self.head, self.data = "insert", format, text[:head_end], data

    def _end(self, text, default_format):
        """Finds `FORMAT name` and what follows it at the end of a statement, and refuses a second statement."""
        at, before, stop = None, None, len(text)
        for kind, value, start, end, depth in tokens(text):
            if stop != len(text):
                raise Refused(62, "SYNTAX_ERROR", f"Syntax error (Multi-statements are not allowed): failed at position {stop + 1} (end of query)")
            if depth == 0:
                if value == b";":
                    stop = start
                    continue
                if kind == "word" and before and before[0] == b"FORMAT" and before[1] == "word":
                    at, self.format, after = before[2], text[start:end].decode(), end
                if value == b"OUTFILE" and before and before[0] == b"INTO":
                    raise Refused(48, "NOT_IMPLEMENTED", "INTO OUTFILE is not allowed")
            before = (value, kind, start)
        if at is None:
            self.before, self.after = text[:stop], b""
        else:
            self.before, self.after = text[:at], text[after:stop]
        self.format = self.format or default_format
        self.text = text[:stop]


# ---------------------------------------------------------------- the wire

class Wire:
    """A connection with a buffer: lines, counted bytes, and bodies of both kinds."""

    def __init__(self, sock):
        self.sock, self.rest = sock, b""
        self.pipe = None  # while it is set, a body's bytes go there straight from the socket, and their number stands for them

    def more(self, limit=PIECE):
        """At most `limit` bytes that are there or arrive next; empty at the end."""
        if self.rest:
            piece, self.rest = self.rest[:limit], self.rest[limit:]
            return piece
        while self.pipe is not None:
            try:
                return os.splice(self.sock.fileno(), self.pipe, limit)
            except BlockingIOError:
                if not select.select([self.sock], [], [], self.sock.gettimeout())[0]:
                    raise TimeoutError("timed out") from None
            except OSError:
                self.pipe = None  # nobody reads it any more, or this system has no such call
        return self.sock.recv(limit)

    def line(self, ahead=65536):
        """The next line. Up to `ahead` bytes are read at a time, so much of what follows it may have to be copied."""
        have = self.rest
        while b"\n" not in have:
            if len(have) > 1 << 20:
                raise Cut("a line without end")
            piece = self.sock.recv(ahead)
            if not piece:
                raise Cut("the connection ended in a line" if have else "")
            have += piece
        line, _, self.rest = have.partition(b"\n")
        return line.rstrip(b"\r")

    def counted(self, size):
        while size:
            piece = self.more(min(size, PIECE))
            if not piece:
                raise Cut("the body ended early")
            size -= piece if isinstance(piece, int) else len(piece)
            yield piece

    def chunked(self):
        size = 0
        while True:
            line = self.line(64 if size >= 16384 else 65536)
            try:
                size = int(line.split(b";")[0], 16)
            except ValueError:
                raise Cut(f"no chunk size: {line[:40]!r}") from None
            if size == 0:
                while self.line():
                    pass
                return
            yield from self.counted(size)
            if self.line(64 if size >= 16384 else 65536):
                raise Cut("a chunk is longer than it says")


def joined(pieces, size=PIECE // 4):
    """The same bytes in pieces of a useful size: a call into the engine costs more than a copy."""
    have, total = [], 0
    for piece in pieces:
        have.append(piece)
        total += len(piece)
        if total >= size:
            yield b"".join(have) if len(have) > 1 else have[0]
            have, total = [], 0
    if have:
        yield b"".join(have)


def decoded(pieces, encoding):
    """A body freed of its Content-Encoding; one that ends in the middle is an error."""
    if encoding in ("", "identity"):
        yield from pieces
        return
    if encoding in ("gzip", "deflate"):
        make = lambda: zlib.decompressobj(47)
    elif encoding == "zstd":
        import zstandard

        make = lambda: zstandard.ZstdDecompressor().decompressobj()
    elif encoding == "lz4":
        import lz4.frame

        make = lz4.frame.LZ4FrameDecompressor
    else:
        raise Refused(89, "UNKNOWN_COMPRESSION_METHOD", f"Unknown compression method '{encoding}'")
    stream, fed = make(), False
    for piece in pieces:
        while piece:
            if stream.eof:
                stream = make()  # several frames one after another are one body
            try:
                out = stream.decompress(piece)
            except Exception as error:
                raise Refused(354, "ZLIB_INFLATE_FAILED", f"The body is no {encoding}: {error}") from None
            fed = True
            piece = (stream.unused_data or b"") if stream.eof else b""
            if out:
                yield out
    if fed and not stream.eof:
        raise Refused(32, "ATTEMPT_TO_READ_AFTER_EOF", f"The {encoding} body ends in the middle")


def blocks(pieces):
    """ClickHouse's own compressed blocks: 16 bytes checksum (not checked here), method, sizes, data."""
    import lz4.block

    have = bytearray()
    for piece in pieces:
        have += piece
        while len(have) >= 25:
            method, packed, size = struct.unpack_from("<BII", have, 16)
            if packed < 9 or packed > 1 << 30 or size > 1 << 30:
                raise Refused(131, "TOO_LARGE_SIZE_COMPRESSED", f"Too large size_compressed: {packed}. Most likely corrupted data")
            if len(have) < 16 + packed:
                break
            data = bytes(memoryview(have)[25:16 + packed])
            del have[:16 + packed]
            try:
                if method == 0x82:
                    yield lz4.block.decompress(data, uncompressed_size=size)
                elif method == 0x90:
                    import zstandard

                    yield zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
                elif method == 0x02:
                    yield data
                else:
                    raise Refused(89, "UNKNOWN_COMPRESSION_METHOD", f"Unknown codec family code: {method}")
            except (ValueError, RuntimeError) as error:
                raise Refused(271, "CANNOT_DECOMPRESS", f"Cannot decompress: {error}") from None
    if have:
        raise Refused(32, "ATTEMPT_TO_READ_AFTER_EOF", "Attempt to read after eof: the last compressed block is not whole")


def encoder(accepted):
    """The Content-Encoding a client accepts, in ClickHouse's order, and its (compress, flush) pair."""
    offers = {word.split(";")[0].strip().lower() for word in accepted.split(",")}
    if "lz4" in offers:
        import lz4.frame

        stream = lz4.frame.LZ4FrameCompressor(auto_flush=True)
        begun = []

        def compress(data):
            head = b"" if begun else stream.begin()
            begun.append(1)
            del begun[1:]
            return head + stream.compress(data)

        return "lz4", compress, lambda: (b"" if begun else stream.begin()) + stream.flush()
    if "zstd" in offers:
        import zstandard

        stream = zstandard.ZstdCompressor(level=1).compressobj()
        return "zstd", stream.compress, stream.flush
    if "gzip" in offers:
        stream = zlib.compressobj(1, zlib.DEFLATED, 31)
        return "gzip", stream.compress, stream.flush
    if "deflate" in offers:
        stream = zlib.compressobj(1, zlib.DEFLATED, 15)
        return "deflate", stream.compress, stream.flush
    return None
