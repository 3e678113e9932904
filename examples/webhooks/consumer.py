"""A receiver of webhooks: verifies the signature, handles each event once, and answers at once.

The ids of handled events stand in a database, in the transaction of what handling does: so an event that comes again,
which happens when an answer was lost, has no second effect, also after a restart.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import sqlite3
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

SECRET = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))
TOLERANCE_SECONDS = 300
LARGEST = 20_000

database = sqlite3.connect(os.environ.get("DATABASE", ":memory:"))
database.execute("CREATE TABLE IF NOT EXISTS handled (id TEXT PRIMARY KEY)")


def is_genuine(event_id: str, timestamp: str, signatures: str, body: bytes) -> bool:
    """Whether one of the signatures is made with our secret, and lately."""
    if not timestamp.isascii() or not timestamp.isdigit() or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    digest = hmac.digest(SECRET, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256)
    expected = b"v1," + base64.b64encode(digest)
    return any(hmac.compare_digest(expected, each.encode()) for each in signatures.split())


def handle(event_id: str, event: dict[str, object]) -> None:
    """Handle an event, once."""
    with database:
        if database.execute("INSERT OR IGNORE INTO handled VALUES (?)", [event_id]).rowcount == 0:
            return
        print(event["type"], event["data"]["id"], flush=True)  # here goes what the event means to you


class Consumer(BaseHTTPRequestHandler):
    """Answers 204 for a genuine event and 401 for any other."""

    def do_POST(self) -> None:
        """Take an event."""
        body = self.rfile.read(min(int(self.headers["content-length"]), LARGEST))
        event_id = self.headers.get("webhook-id", "")
        genuine = is_genuine(
            event_id, self.headers.get("webhook-timestamp", ""), self.headers.get("webhook-signature", ""), body
        )
        if genuine:
            handle(event_id, json.loads(body))
        self.send_response(204 if genuine else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", int(os.environ.get("PORT", "0"))), Consumer)
    print("listening on", server.server_port, flush=True)
    server.serve_forever()
