"""Tracking servers that take their time: a door that holds answers back, and a store that does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class Door:
    """A port before a server. It holds every answer back for `seconds`; without a `target` it
    takes requests and never answers. Both may change while it is open."""

    def __init__(self, target: int | None, seconds: float = 0.0) -> None:
        self.target, self.seconds = target, seconds
        self.held = 0.0
        """Seconds for which answers were held back, all connections together."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Door:
        self._thread.start()
        opening = asyncio.start_server(self._connected, "127.0.0.1", 0)
        server = asyncio.run_coroutine_threadsafe(opening, self._loop).result()
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connected(self, asker: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        if self.target is None:
            while await asker.read(1 << 16):
                pass
            back.close()
            return
        answers, on = await asyncio.open_connection("127.0.0.1", self.target)
        asked = asyncio.Event()

        async def ask() -> None:
            while part := await asker.read(1 << 16):
                asked.set()
                on.write(part)
                await on.drain()
            on.close()

        async def answer() -> None:
            while part := await answers.read(1 << 16):
                if asked.is_set():
                    asked.clear()
                    await asyncio.sleep(self.seconds)
                    self.held += self.seconds
                back.write(part)
                await back.drain()
            back.close()

        await asyncio.gather(ask(), answer(), return_exceptions=True)


class Store:
    """As much of a tracking store as a pass needs, in memory. A call is done at once and answered
    after `seconds`, or after those of `late` for its last word (such as `create`)."""

    def __init__(self, artifacts: Path, seconds: float = 0.0) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.calls: Counter[str] = Counter()
        self.seconds, self.late = seconds, dict[str, float]()
        self._artifacts = artifacts
        self._lock = threading.Lock()

    def __enter__(self) -> Store:
        store = self

        class Handler(BaseHTTPRequestHandler):
            def do(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                asked = json.loads(self.rfile.read(size) or b"{}")
                name = "/".join(urlsplit(self.path).path.split("/")[-2:])
                with store._lock:
                    store.calls[name] += 1
                    found = json.dumps(store.answer(name, asked)).encode()
                time.sleep(store.late.get(name.rpartition("/")[2], store.seconds))
                with contextlib.suppress(ConnectionError):  # Who asked may have given up.
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(found)))
                    self.end_headers()
                    self.wfile.write(found)

            do_GET = do_POST = do_PATCH = do

            def log_message(self, *words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        """What MLflow's REST interface answers, after the call had its effect."""
        experiment = {"experiment_id": "1", "name": "begun", "lifecycle_stage": "active"}
        if name == "experiments/get-by-name":
            return {"experiment": {**experiment, "artifact_location": self._artifacts.as_uri()}}
        if name == "runs/search":
            return {"runs": list(self.runs.values())}
        if name == "runs/create":
            return {"run": self._create(asked)}
        if name == "runs/get":
            return {"run": next(reversed(self.runs.values()))}
        run = self.runs.get(str(asked.get("run_id")))
        if name == "runs/log-batch" and run is not None:
            for kind in ("metrics", "params"):
                run["data"][kind] += asked.get(kind, [])
            kept = {tag["key"]: tag for tag in [*run["data"]["tags"], *asked.get("tags", [])]}
            run["data"]["tags"] = list(kept.values())
        if name == "runs/delete":
            del self.runs[str(asked["run_id"])]
        return {"experiments": [experiment]} if name == "experiments/search" else {}

    def _create(self, asked: dict[str, Any]) -> dict[str, Any]:
        run_id = f"{len(self.calls):x}{self.calls['runs/create']:031x}"
        info = {"run_id": run_id, "run_uuid": run_id, "experiment_id": "1", "status": "RUNNING"}
        info |= {"start_time": asked["start_time"], "artifact_uri": self._artifacts.as_uri()}
        data = {"metrics": [], "params": [], "tags": asked["tags"]}
        self.runs[run_id] = {"info": {**info, "lifecycle_stage": "active"}, "data": data}
        return self.runs[run_id]
