"""A small edge server of the standard library, that fails where a test wants it to."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Received:
    """A request as the server saw it."""

    path: str
    key: str
    token: str
    body: bytes


@dataclass
class EdgeServer:
    """Answers ``POST`` with the number of bytes; ``faults`` are used up first, one a request.

    A fault is a status, a status with headers, or ``"hang up"``.
    """

    faults: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    port: int = 0

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                key, token = self.headers["Idempotency-Key"], self.headers["Authorization"] or ""
                outer.requests.append(Received(self.path, key, token, body))
                fault = outer.faults.pop(0) if outer.faults else 200
                if fault == "hang up":
                    self.close_connection = True
                    return
                status, headers = fault if isinstance(fault, tuple) else (fault, {})
                answer = {"bytes": len(body)}
                if status != 200:
                    kind = {400: "BitstreamError", 409: "ForeignStreamError"}.get(status, "Other")
                    error = {"kind": kind, "message": "Said so.", "next_step": "", "exit_code": 1}
                    answer = {"error": error}
                content = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_words):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_error):
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"
