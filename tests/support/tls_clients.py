"""Clients of a server's SQL ports under TLS that are not ours: `tls_clients.py CONFIG`, and one JSON object of what each of them was told.

CONFIG is JSON: {"postgres": ADDRESS, "flight": ADDRESS, "user": NAME, "token": TOKEN, "ca": FILE, "other_ca": FILE, "certificate": FILE, "key": FILE}, and
perhaps "certificates", where the server asks its clients for one: then each comes with none and with this one, which the server has reason to take
("known") or not ("foreign"). Where there is none, "printed" is an address of Postgres as the server has printed it.

Python's own TLS says which version is spoken; psycopg, ADBC and pyarrow's Flight ask.
"""

import json
import os
import re
import socket
import ssl
import struct
import sys
import tempfile

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import psycopg
import pyarrow as pa
import pyarrow.flight as flight

CONFIG = json.loads(sys.argv[1])
FOLDER = tempfile.TemporaryDirectory()
SSL_REQUEST = struct.pack("!II", 8, 80877103)
# Why a greeting failed, in words that OpenSSL, Go and gRPC have for it. A client of TLS 1.3 may be done greeting before it is refused: then it finds the
# connection closed, or reset under what it writes.
REASONS = {
    "old": ("protocol version",),
    "unknown authority": ("certificate verify failed", "CERTIFICATE_VERIFY_FAILED", "signed by unknown authority"),
    "no certificate": ("certificate required", "CERTIFICATE_REQUIRED"),
    "foreign certificate": ("unknown ca", "unknown certificate authority", "UNKNOWN_CA"),
    "closed": ("closed", "reset", "Broken pipe", "EOF", "aborted", "broken pipe", "failed to connect", "Stream removed"),
}


def refused(error):
    text = str(error)
    for reason, words in REASONS.items():
        if any(word in text for word in words):
            return f"refused: {reason}"
    return f"{type(error).__name__}: {text}"


def address(door):
    host, port = CONFIG[door].rsplit(":", 1)
    return host, int(port)


def contents(name):
    with open(CONFIG[name], encoding="ascii") as file:
        return file.read()


# ---------------------------------------------------------------- the greeting

def greeting(door, protocol, newest=None, asked=False, certificate=None):
    """Greets by hand: the version and the protocol that are agreed upon. `asked`: Postgres is asked for TLS first. `certificate`: whether one is shown;
    where that is said, what the server says of it is waited for."""
    context = ssl.create_default_context(cafile=CONFIG["ca"])
    if newest:
        context.maximum_version = newest
    if certificate:
        context.load_cert_chain(CONFIG["certificate"], CONFIG["key"])
    if protocol:
        context.set_alpn_protocols([protocol])
    try:
        with socket.create_connection(address(door), timeout=20) as plain:
            if asked:
                plain.sendall(SSL_REQUEST)
                assert plain.recv(1) == b"S", "TLS is not offered"
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
                if certificate is not None:
                    secure.recv(1)
                return f"{secure.version()} {secure.selected_alpn_protocol()}"
    except (ssl.SSLError, OSError) as error:
        return refused(error)


def in_the_clear():
    """A startup message without TLS: what the error says, field by field, and whether the connection ends with it."""
    body = struct.pack("!I", 3 << 16) + f"user\0{CONFIG['user']}\0database\0lake\0\0".encode()
    with socket.create_connection(address("postgres"), timeout=20) as plain:
        plain.sendall(struct.pack("!I", len(body) + 4) + body)
        data = b""
        while chunk := plain.recv(65536):
            data += chunk
    assert data[:1] == b"E" and struct.unpack("!I", data[1:5])[0] == len(data) - 1, data
    fields = {part[:1].decode(): part[1:].decode() for part in data[5:].split(b"\0") if part}
    return [fields["S"], fields["C"], fields["M"], fields["H"]]


# ---------------------------------------------------------------- those who ask

def own(key):
    """The key in a file that only its owner reads: libpq takes no other."""
    path = os.path.join(FOLDER.name, "client.key")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(contents(key))
    return path


def with_psycopg(certificate=None, key=None, **more):
    host, port = address("postgres")
    # A file that is not there: nothing of the machine's own is shown.
    shown = {"sslcert": CONFIG[certificate] if certificate else "/nonexistent.pem", "sslkey": own(key) if key else "/nonexistent.key"}
    options = {"sslmode": "verify-full", "sslrootcert": CONFIG["ca"], "connect_timeout": 20, "gssencmode": "disable", **shown, **more}
    try:
        with psycopg.connect(host=host, port=port, user=CONFIG["user"], password=CONFIG["token"], dbname="lake", autocommit=True, **options) as db:
            return f"{db.execute('select 40 + 2').fetchone()[0]} {'TLS' if db.pgconn.ssl_in_use else 'clear'}"
    except psycopg.OperationalError as error:
        said = re.search(r"FATAL: .*", str(error), re.S)
        return said[0] if said else refused(error)


def printed(url):
    """An address as it was printed, and nothing else."""
    with psycopg.connect(url, connect_timeout=20) as db:
        return f"{db.execute('select 40 + 2').fetchone()[0]} {'TLS' if db.pgconn.ssl_in_use else 'clear'}"


def with_adbc(certificate=None, key=None, ca="ca", scheme="grpc+tls"):
    option = "adbc.flight.sql.client_option."
    options = {"username": CONFIG["user"], "password": CONFIG["token"], option + "tls_root_certs": contents(ca),
               "adbc.flight.sql.rpc.timeout_seconds.query": "20"}
    if certificate:
        options |= {option + "mtls_cert_chain": contents(certificate), option + "mtls_private_key": contents(key)}
    try:
        with adbc.connect(f"{scheme}://{CONFIG['flight']}", db_kwargs=options, autocommit=True) as db, db.cursor() as cursor:
            cursor.execute("select 40 + 2")
            return str(cursor.fetchone()[0])
    except adbc_driver_manager.Error as error:
        return refused(error)


def field(number, data):
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


def with_pyarrow(certificate=None, key=None, ca="ca", scheme="grpc+tls"):
    options = {"tls_root_certs": contents(ca)} if scheme == "grpc+tls" else {}
    if certificate:
        options |= {"cert_chain": contents(certificate), "private_key": contents(key)}
    command = field(1, b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery") + field(2, field(1, b"select 40 + 2"))
    call = flight.FlightCallOptions(timeout=20, headers=[(b"authorization", b"Bearer " + CONFIG["token"].encode())])
    try:
        with flight.FlightClient(f"{scheme}://{CONFIG['flight']}", **options) as client:
            info = client.get_flight_info(flight.FlightDescriptor.for_command(command), call)
            return str(client.do_get(info.endpoints[0].ticket, call).read_all().column(0)[0].as_py())
    except (flight.FlightError, pa.ArrowException) as error:
        return refused(error)


ASKING = {"psycopg": with_psycopg, "adbc": with_adbc, "pyarrow": with_pyarrow}


def main():
    if CONFIG.get("certificates"):
        # Whether a client hears why, or finds the connection closed, is a race; by hand there is none.
        short = lambda told: "refused" if told in ("refused: no certificate", "refused: foreign certificate", "refused: closed") else told
        told = {name: [short(ask()), short(ask("certificate", "key"))] for name, ask in ASKING.items()}
        told |= {door: greeting(door, protocol, asked=door == "postgres", certificate=CONFIG["certificates"] == "foreign")
                 for door, protocol in (("postgres", None), ("flight", "h2"))}
    else:
        old = ssl.TLSVersion.TLSv1_2
        told = {
            "postgres": [greeting("postgres", None, asked=True), greeting("postgres", None, old, asked=True)],
            "postgres at once": [greeting("postgres", "postgresql"), greeting("postgres", "postgresql", old)],
            "flight": [greeting("flight", "h2"), greeting("flight", "h2", old)],
            "in the clear": in_the_clear(),
            "psycopg": with_psycopg(),
            "psycopg, bound": with_psycopg(channel_binding="require", require_auth="scram-sha-256"),
            "psycopg, unbound": with_psycopg(channel_binding="disable"),
            "psycopg, old": with_psycopg(ssl_min_protocol_version="TLSv1.2", ssl_max_protocol_version="TLSv1.2"),
            "psycopg, other authority": with_psycopg(sslrootcert=CONFIG["other_ca"]),
            "psycopg, in the clear": with_psycopg(sslmode="disable"),
            "psycopg, as printed": printed(CONFIG["printed"]),
            "adbc": with_adbc(),
            "adbc, other authority": with_adbc(ca="other_ca"),
            "adbc, in the clear": with_adbc(scheme="grpc"),
            "pyarrow": with_pyarrow(),
            "pyarrow, other authority": with_pyarrow(ca="other_ca"),
            "pyarrow, in the clear": with_pyarrow(scheme="grpc"),
        }
    print(json.dumps(told), flush=True)
    FOLDER.cleanup()
    # The clients' own threads can abort the interpreter on its way out, when everything has been said.
    os._exit(0)


main()
