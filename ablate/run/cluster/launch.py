"""A study's way to a cluster and back: up, submit, follow, fetch, down."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ablate.run.capacity import ClusterCannot
from ablate.run.cluster.jobs import Jobs
from ablate.run.cluster.shapes import SHIPPED
from ablate.run.cluster.ways import DASHBOARD, Argv, Existing, Way, decoded, local_token

ENVIRONMENT: Mapping[str, str] = {"PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Order:
    """What is to be launched."""

    study: str
    source: str
    """A preset's name, or the path of the study's file."""
    arguments: tuple[str, ...]
    """Options of `ablate run` on the cluster."""
    report_arguments: tuple[str, ...]
    """Options of `ablate report` here."""
    runs: str
    into: Path
    """Local run folder that records and report are fetched to."""
    job_id: str
    nodes: tuple[str, ...] = ()
    prices: tuple[str, ...] = ()
    """Of types of nodes, as --price takes them."""
    attach: bool = False
    down: bool = False

    @property
    def file(self) -> Path | None:
        """The study's file, or None for a preset."""
        path = Path(self.source)
        return path if path.suffix in (".yaml", ".yml") else None

    @property
    def here(self) -> Path:
        """The run folder as far as it is on this machine: itself, or what was fetched of it."""
        return self.into if "://" in self.runs else Path(self.runs)

    def entrypoint(self) -> Argv:
        """The job's command, in a folder with ablate and the study's file."""
        study = self.file.name if self.file else self.source
        nodes = [part for text in self.nodes for part in ("--nodes", text)]
        nodes += [part for text in self.prices for part in ("--price", text)]
        place = ("--runs", self.runs, "--address", "auto")
        return ("python", "-m", "ablate.cli", "run", study, *self.arguments, *place, *nodes)

    def fetches(self, way: Way) -> list[Argv]:
        """Commands that bring the results here; none when the run folder is seen from here."""
        into = ("--runs", str(self.into))
        if "://" in self.runs:
            copy: Argv = ("ablate", "fetch", self.study, "--from", self.runs, *into)
        elif Path(self.runs).exists():
            return []
        else:
            copy = way.copy(self.runs, str(self.into))
        report = ("ablate", "report", self.source, *self.report_arguments, *into)
        return [copy, report] if copy else []


class Shell(Protocol):
    """Runs commands on this machine; never through a shell."""

    def run(self, argv: Argv) -> None:
        """Run to the end, output shown; raises ClusterCannot when it fails."""

    def output(self, argv: Argv) -> bytes:
        """Run to the end and return what it prints, which is shown to nobody."""

    def background(self, argv: Argv) -> subprocess.Popen[bytes]:
        """Start, output dropped."""


def dry_run(order: Order, way: Way) -> list[str]:
    """Every command that a launch would run, in order, as a person would type them."""
    address = way.address if isinstance(way, Existing) else f"http://127.0.0.1:{DASHBOARD}"
    metadata = f'{{"ablate.study": "{order.study}"}}'
    environment = '{"env_vars": {"PYTHONUNBUFFERED": "1"}}'
    submit = (
        "ray", "job", "submit", "--no-wait", "--address", address,
        "--submission-id", order.job_id, "--metadata-json", metadata,
        "--working-dir", ".", "--runtime-env-json", environment, "--", *order.entrypoint(),
    )  # fmt: skip
    follow = ("ray", "job", "logs", "--follow", "--address", address, order.job_id)
    steps = [
        *([] if order.attach else way.up()),
        way.tunnel(DASHBOARD),
        way.secret(),
        *([] if order.attach else [submit]),
        follow,
        *order.fetches(way),
        *(way.down() if order.down else []),
    ]
    return [shlex.join(step) for step in steps if step]


def launch(
    order: Order,
    way: Way,
    shell: Shell,
    say: Callable[[str], None],
    write: Callable[[str], None],
) -> int:
    """Do it, and return the study's exit code.

    A study that runs already is followed rather than started twice. When this process ends, for
    whatever reason, the study goes on. Raises ClusterCannot when a step fails.
    """
    if not order.attach:
        for argv in way.up():
            shell.run(argv)
    with _tunnel(way, shell) as (address, reconnect):
        secret = way.secret()
        token = decoded(shell.output(secret)) if secret else local_token()
        jobs = Jobs(address, token)
        jobs.wait(reconnect)
        job_id = _job(order, jobs, say, reconnect)
        code = jobs.follow(job_id, write, reconnect)
    for argv in order.fetches(way):
        shell.run(argv)
    if order.down:
        for argv in way.down():
            shell.run(argv)
    return code


def _job(
    order: Order, jobs: Jobs, say: Callable[[str], None], reconnect: Callable[[], None]
) -> str:
    """The id of the job to follow: the study's own that still runs, or a new one."""
    found = jobs.find(order.study)
    if found is not None and (found[1] or order.attach):
        say(f"Following job {found[0]}.")
        return found[0]
    if order.attach:
        raise ClusterCannot(f"no job of study {order.study} is known there; launch it first")
    with tempfile.TemporaryDirectory(prefix="ablate-") as folder:
        pack(order, Path(folder))
        text = shlex.join(order.entrypoint())
        jobs.submit(order.job_id, order.study, text, Path(folder), ENVIRONMENT, reconnect)
    say(f"Submitted job {order.job_id}.")
    return order.job_id


def pack(order: Order, folder: Path) -> None:
    """Put what the job needs into a folder: the study's file, and ablate as it is here."""
    import ablate

    root = Path(next(iter(ablate.__path__))).parent
    for name in SHIPPED:
        if (root / name).is_dir():
            skipped = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(root / name, folder / name, ignore=skipped)
    if order.file:
        shutil.copy(order.file, folder / order.file.name)


class Processes:
    """The shell of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, argv: Argv) -> None:
        hidden = subprocess.DEVNULL if "get-auth-token" in argv else None
        done = subprocess.run(_found(argv), cwd=self.folder, stdout=hidden, check=False)
        if done.returncode:
            raise ClusterCannot(f"`{shlex.join(argv)}` ended with code {done.returncode}")

    def output(self, argv: Argv) -> bytes:
        done = subprocess.run(_found(argv), cwd=self.folder, capture_output=True, check=False)
        if done.returncode:
            raise ClusterCannot(f"`{shlex.join(argv)}` ended with code {done.returncode}")
        return done.stdout

    def background(self, argv: Argv) -> subprocess.Popen[bytes]:
        nothing = subprocess.DEVNULL
        return subprocess.Popen(
            _found(argv), cwd=self.folder, stdin=nothing, stdout=nothing, stderr=nothing
        )


def _found(argv: Sequence[str]) -> list[str]:
    """The command with its program as it is installed beside this Python."""
    if argv[0] == "ablate":
        return [sys.executable, "-m", "ablate.cli", *argv[1:]]
    beside = Path(sys.executable).parent / argv[0]
    return [str(beside) if beside.exists() else argv[0], *argv[1:]]


@contextlib.contextmanager
def _tunnel(way: Way, shell: Shell) -> Iterator[tuple[str, Callable[[], None]]]:
    """The address of the Jobs API, and a function that opens the way to it anew if it is closed."""
    if isinstance(way, Existing):
        yield way.address, lambda: None
        return
    port = _free_port()
    open_: list[subprocess.Popen[bytes]] = [shell.background(way.tunnel(port))]

    def reconnect() -> None:
        if open_[0].poll() is not None:
            open_[0] = shell.background(way.tunnel(port))

    try:
        yield f"http://127.0.0.1:{port}", reconnect
    finally:
        open_[0].terminate()
        open_[0].wait()


def _free_port() -> int:
    """The dashboard's usual port if nothing listens there, else any that is free."""
    for wanted in (DASHBOARD, 0):
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", wanted))
            port: int = listener.getsockname()[1]
            return port
    raise ClusterCannot("this machine has no free port on its loopback")


def new_job_id(study: str) -> str:
    """An id that sorts by time and names the study."""
    return f"ablate-{study}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
