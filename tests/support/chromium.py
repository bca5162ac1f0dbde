"""Chromium, driven by its DevTools protocol over a pipe: nothing is needed besides Debian's `chromium`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def program() -> str | None:
    """Return the path of the browser; None where there is none."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Page:
    """A page of a browser without a window."""

    def __init__(self, sending: int, receiving: int) -> None:
        self._sending = sending
        self._receiving = os.fdopen(receiving, "rb", buffering=0)
        self._unread = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Have the browser do something, and return what comes of it."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._sending, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def open(self, address: str) -> None:
        """Go to a page, and wait until it is loaded."""
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """Return the value of an expression of JavaScript."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until an expression is true."""
        self.run(
            f"""new Promise((done, failed) => {{
                const end = Date.now() + 20000;
                (function look() {{
                    if ({condition}) done();
                    else if (Date.now() > end) failed("never");
                    else setTimeout(look, 20);
                }})();
            }})"""
        )

    def screenshot(self, width: int, height: int) -> bytes:
        """Return an image of the page as PNG."""
        import base64

        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            piece = self._receiving.read(65536)
            assert piece, "the browser has ended"
            self._unread += piece
        whole, _, self._unread = self._unread.partition(b"\0")
        answer: dict[str, Any] = json.loads(whole)
        return answer

    def close(self) -> None:
        """Let go of the pipe."""
        self._receiving.close()


@contextmanager
def browsing(profile: Path) -> Iterator[Page]:
    """Start a browser, and yield its page.

    Args:
        profile: A directory for what it keeps.
    """
    executable = program()
    assert executable is not None
    their_input, ours_out = os.pipe()
    ours_in, their_output = os.pipe()

    def as_three_and_four() -> None:
        # Higher first, since 3 or 4 may be one of the pipe's own.
        first, second = os.dup2(their_input, 100), os.dup2(their_output, 101)
        os.dup2(first, 3)
        os.dup2(second, 4)

    process = subprocess.Popen(
        [
            executable,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            f"--user-data-dir={profile}",
            "--remote-debugging-pipe",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=False,
        preexec_fn=as_three_and_four,
    )
    os.close(their_input)
    os.close(their_output)
    page = None
    try:
        page = Page(ours_out, ours_in)
        yield page
    finally:
        process.kill()
        process.wait()
        if page is not None:
            page.close()
        os.close(ours_out)
