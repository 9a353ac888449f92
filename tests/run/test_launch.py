"""Launches, without a cluster: what is run, followed, refused and shown."""

from __future__ import annotations

import dataclasses
import io
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from rich.console import Console

from ablate.cli import show
from ablate.cli.commands import app, plan_of
from ablate.run.capacity import ClusterCannot
from ablate.run.cluster import launch as steps
from ablate.run.cluster import ways
from ablate.run.cluster.elsewhere import RULE, only_here, wrong_address
from ablate.run.cluster.file import ClusterFile, read
from ablate.run.cluster.jobs import STUDY, Jobs
from ablate.run.cluster.shapes import Layout
from tests.run.cluster_files import ROOT, ablate, an_order, written
from tests.tiny import TWO_LOSSES


class Recorded:
    """A shell that runs nothing and keeps what it was asked to run."""

    def __init__(self, failing: str = "nothing") -> None:
        self.ran: list[tuple[str, ...]] = []
        self.opened: list[tuple[str, ...]] = []
        self.failing = failing

    def run(self, argv: tuple[str, ...]) -> None:
        self.ran.append(argv)
        if self.failing in argv:
            raise ClusterCannot(f"{self.failing} failed")

    def output(self, argv: tuple[str, ...]) -> bytes:
        self.ran.append(argv)
        return b"c2VjcmV0"

    def background(self, argv: tuple[str, ...]) -> subprocess.Popen[bytes]:
        self.opened.append(argv)
        return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


class FakeClient:
    """A Jobs API in memory. `breaks` is how often a connection is lost while it is followed."""

    def __init__(self, output: str = "one\ntwo\n", code: int = 0, breaks: int = 0) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.output, self.code, self.breaks = output, code, breaks
        self.unready = 0

    def submit_job(self, **job: Any) -> None:
        if self.unready:
            self.unready -= 1
            raise RuntimeError("No available agent to submit job, please try again later")
        files = sorted(path.name for path in Path(job["runtime_env"]["working_dir"]).iterdir())
        self.jobs[job["submission_id"]] = {**job, "files": files, "ended": False}

    def list_jobs(self) -> list[Any]:
        return [self.get_job_info(name) for name in self.jobs]

    def get_job_info(self, name: str) -> Any:
        job = self.jobs[name]
        state = "SUCCEEDED" if self.code == 0 else "FAILED"
        status = Status(state if job["ended"] else "RUNNING")
        return SimpleNamespace(
            submission_id=name, metadata=job["metadata"], start_time=1, status=status,
            driver_exit_code=self.code,
        )  # fmt: skip

    async def tail_job_logs(self, name: str) -> Any:
        for at in range(0, len(self.output), 3):
            if self.breaks and at:
                self.breaks -= 1
                raise RuntimeError("connection lost")
            yield self.output[at : at + 3]
        self.jobs[name]["ended"] = True


class Status(str):
    """A job's status."""

    def is_terminal(self) -> bool:
        return self != "RUNNING"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient()
    monkeypatch.setattr(Jobs, "_client", lambda self: fake)
    monkeypatch.setattr("ablate.run.cluster.jobs.RETRY_SECONDS", 0.0)
    return fake


def launched(order: steps.Order, way: ways.Way, shell: Recorded) -> tuple[int, str]:
    said: list[str] = []
    code = steps.launch(order, way, shell, lambda text: None, said.append)
    return code, "".join(said)


def test_what_is_run_is_what_the_dry_run_shows(aws: ClusterFile, client: FakeClient) -> None:
    way, shell = ways.Launcher(aws), Recorded()
    code, text = launched(an_order(), way, shell)
    assert (code, text) == (0, "one\ntwo\n")
    shown = steps.dry_run(an_order(), way)
    ours = ("ray job", "ray dashboard")
    assert [line for line in shown if not line.startswith(ours)] == [
        steps.shlex.join(argv) for argv in shell.ran
    ]
    assert [argv[:2] for argv in shell.opened] == [("ray", "dashboard")]
    job = client.jobs["ablate-losses-1"]
    assert job["entrypoint"] in next(line for line in shown if "submit" in line)
    assert job["metadata"] == {STUDY: "losses"}
    assert {"ablate", "trainables", "search_spaces"} <= set(job["files"])


def test_on_kubernetes_the_same_with_kubectl(tmp_path: Path, client: FakeClient) -> None:
    file = read(written(tmp_path, "kuberay", Layout(runs="s3://bucket/ablate")))
    shell = Recorded()
    launched(an_order(), ways.Kubectl(file), shell)
    assert [argv[:2] for argv in shell.ran if argv[0] == "kubectl"] == [
        ("kubectl", "apply"), ("kubectl", "wait"), ("kubectl", "get"), ("kubectl", "delete"),
    ]  # fmt: skip
    assert shell.opened[0][:2] == ("kubectl", "port-forward")


def test_a_broken_connection_is_made_anew_and_nothing_is_shown_twice(
    aws: ClusterFile, client: FakeClient
) -> None:
    client.breaks, client.unready = 5, 2
    assert launched(an_order(), ways.Launcher(aws), Recorded()) == (0, "one\ntwo\n")
    assert client.breaks == client.unready == 0


def test_the_studys_exit_code_is_the_commands(aws: ClusterFile, client: FakeClient) -> None:
    client.code = 3
    assert launched(an_order(), ways.Launcher(aws), Recorded())[0] == 3


def test_a_study_that_runs_is_followed_not_started_again(
    aws: ClusterFile, client: FakeClient
) -> None:
    with pytest.raises(ClusterCannot, match="no job of study losses"):
        launched(an_order(attach=True), ways.Launcher(aws), Recorded())
    launched(an_order(), ways.Launcher(aws), Recorded())
    client.jobs["ablate-losses-1"]["ended"] = False
    launched(an_order(job_id="second"), ways.Launcher(aws), Recorded())
    shell = Recorded()
    launched(an_order(job_id="third", attach=True, down=False), ways.Launcher(aws), shell)
    assert list(client.jobs) == ["ablate-losses-1"]
    assert not any(argv[:2] == ("ray", "up") for argv in shell.ran)


def test_a_study_of_ones_own_travels_along(
    tmp_path: Path, aws: ClusterFile, client: FakeClient
) -> None:
    study = tmp_path / "mine.yaml"
    study.write_text("question: x\n")
    launched(an_order(source=str(study)), ways.Launcher(aws), Recorded())
    job = client.jobs["ablate-losses-1"]
    assert "mine.yaml" in job["files"]
    assert (
        " run mine.yaml --set 'a=1 2' --runs s3://bucket/ablate --address auto" in job["entrypoint"]
    )


def test_a_step_that_fails_ends_the_launch(aws: ClusterFile, client: FakeClient) -> None:
    with pytest.raises(ClusterCannot, match="up failed"):
        launched(an_order(), ways.Launcher(aws), Recorded(failing="up"))
    assert client.jobs == {}


def test_what_this_machine_lacks_is_listed_without_a_secret(
    aws: ClusterFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    found = [problem.key for problem in ways.Launcher(aws).needs()]
    assert "credentials" in found
    assert "file_mounts ./ablate" in found
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "top-secret")
    problems = ways.Launcher(aws).needs()
    assert "credentials" not in [problem.key for problem in problems]
    assert "top-secret" not in "".join(map(str, problems))


def test_the_command_prints_templates() -> None:
    done = ablate("cluster", "template", "aws")
    assert done.returncode == 0
    assert done.stdout == (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    assert ablate("cluster", "template", "azure").returncode == 2


def test_a_dry_run_prints_commands_only_and_a_large_trial_is_refused(tmp_path: Path) -> None:
    file = str(written(tmp_path, "aws"))
    done = ablate("launch", "quickstart", "--cluster", file, "--dry-run", "--down")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ray", "get-auth-token"], ["ray", "up"], ["ray", "dashboard"], ["ray", "job"],
        ["ray", "job"], ["ablate", "fetch"], ["ablate", "report"], ["ray", "down"],
    ]  # fmt: skip
    assert "YOUR-BUCKET" in done.stderr
    study = tmp_path / "large.yaml"
    content = yaml.safe_load((ROOT / "search_spaces" / "quickstart.yaml").read_text())
    content["resources"] = {"workers": 1, "cpus_per_worker": 64}
    study.write_text(yaml.safe_dump(content))
    refused = ablate("launch", str(study), "--cluster", file, "--dry-run")
    assert refused.returncode == 3
    assert "needs 64 CPU, but the largest node has 8" in refused.stderr
    assert refused.stdout == ""


def test_a_file_with_gaps_is_not_launched(tmp_path: Path) -> None:
    done = ablate("launch", "quickstart", "--cluster", str(written(tmp_path, "aws")))
    assert done.returncode == 2
    assert "metadata.runs: must be filled in" in done.stderr


@pytest.mark.parametrize("secret", ["SECRET", "SEC/RET"])
def test_credentials_are_not_put_into_a_job(tmp_path: Path, secret: str) -> None:
    """Whoever sees the dashboard sees the command."""
    file = str(written(tmp_path, "aws"))
    runs = f"s3://KEYID:{secret}@b/x"
    done = ablate("launch", "quickstart", "--cluster", file, "--runs", runs, "--dry-run")
    assert done.returncode == 2 and done.stdout == ""
    assert "--runs: must hold no credentials" in done.stderr and "s3://***@b/x" in done.stderr
    assert "KEYID" not in done.stderr and secret not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_launch_that_is_stopped_prints_the_command_that_follows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it prints is the launch itself and --attach: as typed, whatever is in the words."""
    orders: list[tuple[steps.Order, ways.Way]] = []

    def stopped(order: steps.Order, way: ways.Way, *_: Any) -> int:
        orders.append((order, way))
        raise KeyboardInterrupt

    told = io.StringIO()
    monkeypatch.setattr(show, "err", Console(file=told, width=80))
    monkeypatch.setattr(steps, "launch", stopped)
    monkeypatch.setattr(ways.Launcher, "needs", lambda self: [])
    file = written(tmp_path, "local", Layout(hosts=("a", "b")))
    filled = file.read_text().replace("YOUR-", "my-")
    file.write_text(filled)
    runs, into = str(tmp_path / "run folder"), str(tmp_path / "in to")
    words = [
        "quickstart", "--set", "optim.lr=[1.0e-5, 2.0e-5]", "--only", "loss.name=lse_pair",
        "--cluster", str(file), "--nodes", "2xCPU=8,GPU=1", "--runs", runs, "--into", into,
        "--down", "--tracking-uri", "http://mlflow:5000",
    ]  # fmt: skip
    for given in (words, None):
        if given is None:
            said = told.getvalue().split("follow it again: ")[1].splitlines()[0]
            given = shlex.split(said)[2:]
            assert given[-1] == "--attach"
        app(["launch", *given], standalone_mode=False)
    (first, way), (second, other) = orders
    assert dataclasses.replace(first, attach=True, job_id="") == dataclasses.replace(
        second, job_id=""
    )
    assert way == other


@pytest.fixture
def planning(
    tmp_path: Path, tiny_collection: str, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[str]]:
    """Mistakes of a study that names its data so, seen from a folder that holds no data; `at` is
    this machine's ABLATE_COLLECTIONS."""
    names = {"train": tiny_collection, "test": tiny_collection, "backbone": tiny_backbone}

    def plan(here: str, at: str = "", **changed: str) -> list[str]:
        monkeypatch.chdir(here)
        monkeypatch.setenv("ABLATE_COLLECTIONS", at)
        text = TWO_LOSSES.format(**{**names, **changed})
        (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
        return [str(problem) for problem in only_here(plan_of(f"{tmp_path}/mine.yaml", [], []))]

    return plan


def test_what_only_this_machine_finds_is_not_sent_to_a_cluster(
    tmp_path: Path,
    tiny_collection: str,
    tiny_backbone: str,
    planning: Callable[..., list[str]],
) -> None:
    data, backbone = Path(tiny_collection), Path(tiny_backbone)
    here = str(data.parent)
    assert planning(here) == []
    assert planning(here, train="pydocs/small", backbone="quickstart") == []
    wanted = f"data: {RULE} (got 'tiny'); did you mean '{data}'?"
    assert planning(here, train="tiny", test="tiny") == [wanted]
    assert planning(str(tmp_path), str(data.parent), train="tiny", test="tiny") == [wanted]
    relative = planning(str(backbone.parent), backbone=f"./{backbone.name}")
    assert relative == [
        f"encoder.backbone: {RULE} (got './{backbone.name}'); did you mean '{backbone}'?"
    ]


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_every_mistake_of_a_launch_is_listed_and_nothing_is_shown(
    tmp_path: Path, dry: list[str]
) -> None:
    place = ["--address", "foo", "--runs", "s3://KEY:SECRET@b/a", "--down"]
    done = ablate("launch", "quickstart", *place, *dry)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    said = " ".join(done.stderr.split())
    for part in (
        "3 mistakes",
        "--address: must be a Jobs API, http://HOST:PORT (got 'foo'); did you mean",
        "--down: needs the cluster's file",
        "--runs: must hold no credentials",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("http://10.0.0.1:8265", None),
        ("https://ray.example.com:443/", None),
        ("http://[::1]:8265", None),
        ("foo", "http://foo:8265"),
        ("ray://head:10001", "http://head:8265"),
        ("127.0.0.1:8265", "http://127.0.0.1:8265"),
        ("http://head", "http://head:8265"),
        ("http://head:port", ""),
        ("http://head:99999", ""),
        ("auto", ""),
        ("", ""),
    ],
)
def test_the_address_of_a_jobs_api_has_one_form(address: str, near: str | None) -> None:
    found = list(wrong_address(address))
    assert [problem.nearest for problem in found] == ([] if near is None else [near or None])


def test_a_job_of_an_unknown_study_is_not_printed(tmp_path: Path) -> None:
    done = ablate("cluster", "template", "kuberay", "--job", "quickstrt")
    assert done.returncode == 2 and done.stdout == ""
    assert "did you mean 'quickstart'?" in done.stderr
    study = tmp_path / "mine.yaml"
    study.write_text("question: x\n")
    done = ablate("cluster", "template", "kuberay", "--job", str(study))
    assert done.returncode == 0 and f"run {study} --runs" in " ".join(done.stdout.split())
    assert "The image must hold" in done.stderr
