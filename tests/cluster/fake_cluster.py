"""An autoscaling Ray cluster on this machine: Ray's fake multi-node provider, on loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray  # brings psutil along

HEAD_ID = "f" * 51 + "00000"
"""The id that Ray's fake provider gives the head; the head must be started under it."""
PORT = 6379
"""Fake nodes look for their head at this port and no other."""
PROVIDER = "fake_providers.Provider"
EMPTY: dict[str, Any] = {
    **{key: {} for key in ("auth", "docker", "file_mounts")},
    **{
        key: []
        for key in (
            "initialization_commands", "setup_commands", "head_setup_commands",
            "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands",
            "cluster_synced_files", "rsync_exclude", "rsync_filter",
        )
    },
    "file_mounts_sync_continuously": False,
}  # fmt: skip


@dataclass
class FakeCluster:
    """A head without CPUs, and node types that come and go; everything ends with `stop`."""

    types: Mapping[str, Mapping[str, Any]]
    max_workers: int
    idle_seconds: float = 12.0
    module: str = PROVIDER
    head_cpus: int = 0
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="abl", dir="/tmp")))

    def __post_init__(self) -> None:
        self.dashboard = f"http://127.0.0.1:{free_port()}"
        self.token = self.folder / "token"
        self.token.write_text("a-token-of-the-tests-and-of-nothing-else")
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_ADDRESS": f"127.0.0.1:{PORT}",
        }
        self._head: subprocess.Popen[bytes] | None = None

    def config(self) -> dict[str, Any]:
        """What `ray start` is told of the nodes that it may add."""
        types = {
            name: {"node_config": {}, "min_workers": 0, **settings}
            for name, settings in self.types.items()
        }
        for settings in types.values():
            settings["resources"] = {**settings["resources"], "object_store_memory": 150 * 2**20}
        head = {"resources": {"CPU": self.head_cpus}, "node_config": {}, "max_workers": 0}
        provider = {
            "type": "external", "module": self.module,
            "launch_multiple": True, "head_node_id": HEAD_ID,
        }  # fmt: skip
        return {
            **EMPTY,
            "cluster_name": "fake",
            "max_workers": self.max_workers,
            "upscaling_speed": 100.0,
            "idle_timeout_minutes": self.idle_seconds / 60,
            "provider": provider,
            "available_node_types": {"ray.head.default": head, **types},
            "head_node_type": "ray.head.default",
        }

    def start(self) -> None:
        """Start the head and its autoscaler, and wait until both the cluster and its API answer."""
        config = self.folder / "autoscaling.json"
        config.write_text(json.dumps(self.config()))
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
            "--node-ip-address=127.0.0.1", f"--port={PORT}", f"--num-cpus={self.head_cpus}",
            f"--autoscaling-config={config}", f"--temp-dir={self.folder}/ray",
            "--include-dashboard=true", "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self.dashboard.rpartition(':')[2]}",
            f"--dashboard-agent-listen-port={free_port()}",
            "--object-store-memory=150000000", "--disable-usage-stats",
        ]  # fmt: skip
        environment = {
            **os.environ,
            **self.environment,
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "PYTHONPATH": str(Path(__file__).parent),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        del environment["RAY_ADDRESS"]
        with (self.folder / "head.log").open("wb") as log:
            self._head = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(lambda: answers(PORT) and answers(self.dashboard), 120, "the head to answer")

    def nodes(self) -> list[dict[str, Any]]:
        """The living worker nodes, as `ray.nodes` lists them; needs a connection."""
        return [
            node for node in ray.nodes() if node["Alive"] and node["NodeID"] != HEAD_ID
        ]  # fmt: skip

    def kill(self, node: Mapping[str, Any]) -> None:
        """End a node's raylet at once, as a reclaimed spot machine ends."""
        name = node["RayletSocketName"]
        assert str(self.folder) in name
        for process in self._children():
            if process.name() == "raylet" and any(name in part for part in process.cmdline()):
                process.kill()
                return
        raise LookupError(name)

    def stop(self) -> None:
        """End every process that `start` led to, by its id."""
        import psutil

        if self._head is None:
            return
        children = self._children()
        self._head.send_signal(signal.SIGTERM)
        try:
            self._head.wait(20)
        except subprocess.TimeoutExpired:
            self._head.kill()
            self._head.wait()
        _, left = psutil.wait_procs(children, timeout=5)
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=5)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _children(self) -> list[Any]:
        import psutil

        assert self._head is not None
        return psutil.Process(self._head.pid).children(recursive=True)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def answers(where: int | str) -> bool:
    """Whether something listens at a port or address of loopback."""
    port = int(str(where).rpartition(":")[2])
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> float:
    """Wait until the condition holds and return how long that took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.25)
    return time.monotonic() - began


@contextmanager
def running(cluster: FakeCluster, seconds: int = 300) -> Iterator[FakeCluster]:
    """The cluster for as long as the block runs; this process may connect to it.

    A block that takes more than `seconds` ends in a TimeoutError, and the cluster with it.
    """
    if answers(PORT):
        pytest.skip(f"port {PORT} is taken, and fake nodes join no other")
    before = {key: os.environ.get(key) for key in cluster.environment}
    alarm = signal.signal(signal.SIGALRM, _too_late)
    signal.alarm(seconds)
    try:
        cluster.start()
        os.environ.update(cluster.environment)
        read_authentication()
        yield cluster
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, alarm)
        ray.shutdown()
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value
        read_authentication()
        cluster.stop()


def _too_late(*_: object) -> None:
    raise TimeoutError("the test takes too long")


def read_authentication() -> None:
    """Have Ray read its settings again: it reads mode and token once, when it is imported."""
    from ray._raylet import AuthenticationTokenLoader, Config

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
