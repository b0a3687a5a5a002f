"""A real Chromium for the tests that are marked `browser`, and what it asked for and its errors."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """Yield a browser: the one that the system has, else the one that ``playwright install chromium`` has put there."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *arguments])
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page of a browser, with the requests it made and the errors in its console."""

    def __init__(self, browser: Any, base: str, **options: Any) -> None:
        self.browser = browser
        self.page = browser.new_context(**options).new_page()
        self.requests: list[Any] = []
        self.errors: list[str] = []
        self.base = base
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)

    def strangers(self) -> list[str]:
        """Return what was asked of other servers."""
        own = (self.base, f"ws{self.base.removeprefix('http')}", "blob:", "data:")
        return [request.url for request in self.requests if not request.url.startswith(own)]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Yield the address of a folder on the loopback interface."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
