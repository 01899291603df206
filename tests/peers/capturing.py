"""A server for the SDKs that notes each request and refuses it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.peers.recording import REFUSAL, Sent

__all__ = ["Captures", "capturing"]


class Captures:
    """Where to send to, and the one request that was."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sent: list[Sent] = []

    def take(self) -> Sent:
        (sent,) = self.sent
        self.sent.clear()
        return sent


@contextlib.contextmanager
def capturing() -> Iterator[Captures]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = json.loads(self.rfile.read(int(headers["content-length"])))
            captures.sent.append(Sent(self.path, headers, body))
            self.send_response(400)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(REFUSAL)))
            self.end_headers()
            self.wfile.write(REFUSAL)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: what came is noted."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        captures = Captures(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield captures
        finally:
            server.shutdown()
            thread.join()
