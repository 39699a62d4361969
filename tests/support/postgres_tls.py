"""TLS before a Postgres that has none (the one from PyPI is built without): `postgres_tls.py --port N --to PORT --tls CERT KEY [--client-ca CA]`.

Answers a client's SSLRequest, and hands on what comes through to the server on the loopback port. A client that asks for no TLS is refused with the
words of a server whose pg_hba.conf wants it. SCRAM works; channel binding does not, as the server behind knows of no channel.
"""

import argparse
import asyncio
import ssl
import struct

SSL_REQUEST, GSS_REQUEST, PIECE = struct.pack("!II", 8, 80877103), struct.pack("!II", 8, 80877104), 1 << 18


def refusal():
    fields = b"".join(key + text + b"\0" for key, text in (
        (b"S", b"FATAL"), (b"V", b"FATAL"), (b"C", b"28000"), (b"M", b'no pg_hba.conf entry for host "127.0.0.1", no encryption'))) + b"\0"
    return b"E" + struct.pack("!I", len(fields) + 4) + fields


async def pump(reader, writer):
    try:
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def secured(reader, writer, context):
    """The same connection under TLS."""
    loop, plain = asyncio.get_running_loop(), writer.transport
    protocol = plain.get_protocol()
    transport = await loop.start_tls(plain, protocol, context, server_side=True, ssl_handshake_timeout=20)
    protocol._over_ssl = True
    reader._transport = transport
    return asyncio.StreamWriter(transport, protocol, reader, loop)


async def client(reader, writer, context, port):
    try:
        head = await reader.readexactly(8)
        while head == GSS_REQUEST:
            writer.write(b"N")
            head = await reader.readexactly(8)
        if head != SSL_REQUEST:
            writer.write(refusal())
            await writer.drain()
            return
        writer.write(b"S")
        await writer.drain()
        writer = await secured(reader, writer, context)
        behind, to = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, to), pump(behind, writer))
    except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
        pass
    finally:
        writer.close()


async def serve(options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*options.tls)
    if options.client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(options.client_ca)
    server = await asyncio.start_server(lambda reader, writer: client(reader, writer, context, options.to), "127.0.0.1", options.port)
    async with server:
        await server.serve_forever()


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--to", type=int, required=True)
    options.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), required=True)
    options.add_argument("--client-ca")
    asyncio.run(serve(options.parse_args()))


main()
