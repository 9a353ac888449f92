"""Headless Chromium over its DevTools protocol, and an `mlflow server`: what a person would see."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--remote-debugging-port=0",
    "--hide-scrollbars",
)  # fmt: skip
STEP = 0.1
TABLE, CHARTS = ".ag-root-wrapper", ".js-plotly-plot, svg"
MENU, ITEMS = "[data-testid=saved-views-trigger]", "[data-testid^=saved-views-item-]"
"""CSS selectors of what MLflow draws: its runs table, its charts, its menu of saved views."""


class Page:
    """One tab."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._count = socket, 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a DevTools method; events are passed over."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        await self._socket.send_str(json.dumps(message))
        while True:
            answer = json.loads(await self._socket.receive_str())
            if answer.get("id") == self._count:
                return dict(answer.get("result", {}))

    async def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        done = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return done.get("result", {}).get("value")

    async def text(self, places: str) -> str:
        """The texts of every place that a CSS selector names, those of charts included."""
        found = f"[...document.querySelectorAll({places!r})].map(x => x.textContent).join(' ')"
        return str(await self.evaluate(found))

    async def click(self, place: str) -> None:
        """Press and release the mouse on the first place that a CSS selector names."""
        found = f"document.querySelector({place!r}).getBoundingClientRect().toJSON()"
        box = await self.evaluate(found)
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            await self.call(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
            )

    async def open(
        self, url: str, words: Sequence[str], seconds: float, places: str = TABLE
    ) -> float:
        """Seconds until those places have all the words. TimeoutError names what they lack."""
        await self.call("Page.navigate", url="about:blank")
        began = time.monotonic()
        await self.call("Page.navigate", url=url)
        await self.wait(words, seconds, places)
        return time.monotonic() - began

    async def wait(self, words: Sequence[str], seconds: float, places: str) -> None:
        """Return when those places have all the words. TimeoutError names what they lack."""
        until = time.monotonic() + seconds
        missing = list(words)
        while time.monotonic() < until:
            text = await self.text(places)
            missing = [word for word in words if word not in text]
            if not missing:
                return
            await asyncio.sleep(STEP)
        where = await self.evaluate("location.href")
        raise TimeoutError(f"{where} has no {missing} in {places} after {seconds:g} s")

    async def screenshot(self, path: Path) -> None:
        """The visible part, as PNG."""
        done = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(done["data"]))


@contextlib.asynccontextmanager
async def tab(profile: Path, width: int = 1600, height: int = 1000) -> AsyncIterator[Page]:
    """A tab of a browser of its own, which ends with the block."""
    import aiohttp

    size = (f"--window-size={width},{height}", f"--user-data-dir={profile}")
    process = await asyncio.create_subprocess_exec(
        str(CHROMIUM), *FLAGS, *size, "about:blank",
        stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = ""
        while "DevTools listening on" not in line:
            line = (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
        port = line.split("127.0.0.1:")[1].split("/")[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                (page,) = [one for one in await answer.json() if one["type"] == "page"]
            address = page["webSocketDebuggerUrl"]
            async with session.ws_connect(address, max_msg_size=0) as connection:
                yield Page(connection)
    finally:
        process.kill()
        await process.wait()


def needs_browser() -> None:
    """Skip the calling test where there is no Chromium or nothing to drive it with."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    pytest.importorskip("aiohttp")


def free_port() -> int:
    """A port of the loopback interface that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Server:
    """An `mlflow server` on loopback that can be killed and started again."""

    def __init__(self, store: str, artifacts: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [
            str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1",
            "--port", str(self.port), "--backend-store-uri", store,
            "--artifacts-destination", str(artifacts), "--workers", "1",
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 120.0) -> float:
        """Seconds until it answers."""
        began = time.monotonic()
        self.launch()
        assert self._process is not None
        while time.monotonic() < began + seconds:
            if self.answers():
                return time.monotonic() - began
            assert self._process.poll() is None, "the server has ended"
            time.sleep(0.2)
        raise TimeoutError("the server did not start")

    def launch(self) -> None:
        """Start it, without waiting until it answers."""
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,
        )

    def answers(self) -> bool:
        """Whether it can be talked to now."""
        with contextlib.suppress(OSError), urlopen(f"{self.url}/health", timeout=5):
            return True
        return False

    def kill(self) -> None:
        """End it at once, with every process it started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def serving(store: str, artifacts: Path) -> Iterator[Server]:
    """A server that answers, for as long as the block runs."""
    server = Server(store, artifacts)
    try:
        server.start()
        yield server
    finally:
        server.kill()
