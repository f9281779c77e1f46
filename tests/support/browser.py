"""A headless Chromium, and a web site whose page tries something and reports to it."""

from __future__ import annotations

import json
import queue
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Site:
    """A web server on another port, whose page tries everything and reports to it."""

    def __init__(self, script: str) -> None:
        self.results: queue.Queue[dict[str, str]] = queue.Queue()
        results = self.results
        page = f"<!doctype html><title>a page</title><body><script>{script}</script>".encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.end_headers()
                self.wfile.write(page)

            def do_POST(self) -> None:
                results.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--no-proxy-server", "--mute-audio",
)  # fmt: skip


def browser(profile: str) -> list[str]:
    """The command of a browser with a profile of its own."""
    assert CHROMIUM is not None
    return [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}"]
