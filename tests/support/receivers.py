"""Takes what a server sends, and prints it: the port it listens on first, then one JSON object a line.

  receivers.py otlp      OTLP over HTTP: each span and each metric, decoded by the protocol's own messages
  receivers.py smtp      mail: sender, recipients, subject, text
  receivers.py http      JSON by POST: path, headers, body

It ends with its standard input.
"""

import asyncio
import email
import email.policy
import http.server
import json
import sys
import threading

lock = threading.Lock()


def say(value):
    with lock:
        print(json.dumps(value), flush=True)


def plain(value):
    """An attribute's value as JSON has it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


def attributes(pairs):
    return {pair.key: plain(pair.value) for pair in pairs}


def spans(body):
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    request.ParseFromString(body)
    for of in request.resource_spans:
        for scope in of.scope_spans:
            for span in scope.spans:
                say({
                    "span": span.name, "trace": span.trace_id.hex(), "id": span.span_id.hex(), "parent": span.parent_span_id.hex(),
                    "start": span.start_time_unix_nano, "end": span.end_time_unix_nano, "error": span.status.code == 2,
                    "attributes": attributes(span.attributes), "resource": attributes(of.resource.attributes),
                })


def metrics(body):
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    request = ExportMetricsServiceRequest()
    request.ParseFromString(body)
    for of in request.resource_metrics:
        for scope in of.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                for point in getattr(metric, kind).data_points:
                    value = point.count if kind == "histogram" else getattr(point, point.WhichOneof("value"))
                    say({"metric": metric.name, "unit": metric.unit, "kind": kind, "value": value, "attributes": attributes(point.attributes)})


class Post(http.server.BaseHTTPRequestHandler):
    take = None

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            self.take(self.path, dict(self.headers), body)
            status = 200
        except Exception as error:
            say({"wrong": f"{self.path}: {error!r}"})
            status = 400
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def post(take):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Taker", (Post,), {"take": staticmethod(take)}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def take_otlp(path, headers, body):
    if headers.get("content-type", headers.get("Content-Type")) != "application/x-protobuf":
        raise ValueError("not protobuf")
    {"/v1/traces": spans, "/v1/metrics": metrics}[path](body)


def take_json(path, headers, body):
    say({"path": path, "headers": {name.lower(): value for name, value in headers.items()}, "body": json.loads(body)})


class Mail:
    async def handle_DATA(self, server, session, envelope):
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        say({
            "from": envelope.mail_from, "to": envelope.rcpt_tos, "header_from": str(message["From"]), "header_to": str(message["To"]),
            "subject": str(message["Subject"]), "date": str(message["Date"]), "text": message.get_content(),
            "user": session.auth_data.login.decode() if session.auth_data else None,
        })
        return "250 OK"


def smtp():
    from aiosmtpd.smtp import SMTP, AuthResult

    def check(server, session, envelope, mechanism, data):
        return AuthResult(success=data.password == b"right", auth_data=data)

    loop = asyncio.new_event_loop()
    made = loop.create_server(lambda: SMTP(Mail(), authenticator=check, auth_require_tls=False, loop=loop), "127.0.0.1", 0)
    server = loop.run_until_complete(made)
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return server.sockets[0].getsockname()[1]


def main():
    what = sys.argv[1]
    port = {"otlp": lambda: post(take_otlp), "smtp": smtp, "http": lambda: post(take_json)}[what]()
    say({"port": port})
    sys.stdin.read()


main()
