"""A headless Chromium, driven over a pipe with its DevTools protocol; nothing but the standard library."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
#: No name resolves: a page that needs the network shows it.
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND"


def find_chromium() -> str | None:
    """Path of an installed Chromium or Chrome, ``None`` without one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One open page: what it asked for, what it complained about, and JavaScript run in it."""

    def __init__(self, browser: "Chromium", session: str):
        self.browser, self.session = browser, session
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.loaded = False

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **parameters)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        reply = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in reply:
            raise RuntimeError(reply["exceptionDetails"]["exception"].get("description", reply))
        return reply["result"].get("value")

    def wait_for(self, script: str, seconds: float = 120) -> Any:
        """Repeat an expression until it is true, and return it; ``TimeoutError`` after ``seconds``."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not true after {seconds} s: {script}")
            time.sleep(0.1)
        return value

    def resize(self, width: int, height: int = 1000) -> None:
        """Give the window another size; a narrow one is a phone's."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Save a PNG of the window, or of the whole page."""
        image = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(image))

    def on_event(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] == "error":
            self.errors.append(" ".join(str(arg.get("value", arg)) for arg in parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")


class Chromium:
    """``with Chromium(path) as browser: page = browser.open(url)``."""

    def __init__(self, program: str):
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        read_here, write_there = os.pipe()
        read_there, self.write = os.pipe()
        # Chromium reads commands from descriptor 3 and writes to 4; the shell moves ours there.
        flags = [*FLAGS, OFFLINE, f"--user-data-dir={self.profile}", "about:blank"]
        move = f'exec "$0" "$@" 3<&{read_there} 4>&{write_there}'
        self.process = subprocess.Popen(
            ["bash", "-c", move, program, *flags],
            pass_fds=(read_there, write_there),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self.read, self.buffer = read_here, b""
        self.numbers = itertools.count(1)
        self.pages: dict[str, Page] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.read)
        os.close(self.write)
        shutil.rmtree(self.profile, ignore_errors=True)

    def receive(self, seconds: float) -> dict[str, Any]:
        """The next message, after giving events to their pages."""
        deadline = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            if not select.select([self.read], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium said nothing for {seconds} s")
            chunk = os.read(self.read, 1 << 20)
            if not chunk:
                raise RuntimeError("Chromium ended")
            self.buffer += chunk
        raw, _, self.buffer = self.buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        if page := self.pages.get(message.get("sessionId", "")):
            page.on_event(message.get("method", ""), message.get("params", {}))
        return message

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while (reply := self.receive(120)).get("id") != number:
            pass
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']}")
        return dict(reply["result"])

    def open(self, url: str, width: int = 1400, height: int = 1000, dark: bool = False) -> Page:
        """Open a page and wait until it has loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        page.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        page.loaded = False
        if problem := page.call("Page.navigate", url=url).get("errorText"):
            raise FileNotFoundError(f"{url}: {problem}")
        while not page.loaded:
            self.receive(120)
        return page
