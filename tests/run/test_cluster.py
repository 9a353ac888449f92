"""Cluster files and launches, without a cluster: what is generated, accepted, refused and run."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ablate.plan.estimate import TRIAL_SECONDS
from ablate.plan.planner import make_plan
from ablate.plan.study import load_study
from ablate.plan.timing import EarlierTrial
from ablate.run.capacity import (
    Capacity,
    ClusterCannot,
    Nodes,
    parse_nodes,
    slots,
    written_nodes,
)
from ablate.run.cluster import cost, kubernetes, nodes, ways
from ablate.run.cluster import launch as steps
from ablate.run.cluster.check import look
from ablate.run.cluster.fetch import fetch
from ablate.run.cluster.file import ClusterFile, read
from ablate.run.cluster.jobs import STUDY, Jobs
from ablate.run.cluster.shapes import CPU, UNFILLED, Layout
from ablate.run.cluster.templates import PROVIDERS, template
from ablate.run.ledger import Ledger, Record
from ablate.run.trial import Resources
from trainables.errors import InvalidInput

ROOT = Path(__file__).resolve().parents[2]
LAUNCHED = [name for name in PROVIDERS if name != "kuberay"]


def written(tmp_path: Path, provider: str, layout: Layout | None = None) -> Path:
    path = tmp_path / f"{provider}.yaml"
    path.write_text(template(provider, layout or Layout()), encoding="utf-8")
    return path


def changed(tmp_path: Path, provider: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    content = yaml.safe_load(template(provider, Layout()))
    change(content)
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def resources(workers: int = 1, cpus: float = 1.0, gpus: float = 0.0) -> Resources:
    return Resources("runs", "cache", workers, cpus, gpus)


# Capacity


def test_room_is_counted_node_by_node() -> None:
    capacity = Capacity((Nodes({"CPU": 3.0}, 2),))
    assert slots(resources(cpus=2), capacity, None).count == 2
    assert slots(resources(workers=2, cpus=1), capacity, None).count == 3
    assert slots(resources(), capacity, 4).count == 4
    assert slots(resources(), capacity, 4).reason == "resources.max_concurrent_trials"


def test_growth_counts_only_up_to_its_limit() -> None:
    kinds = (Nodes({"CPU": 4.0}, 8), Nodes({"CPU": 8.0, "GPU": 1.0}, 8))
    capacity = Capacity((Nodes({"CPU": 0.0}, 1),), kinds, most=8)
    assert slots(resources(cpus=2), capacity, None).count == 32
    assert slots(resources(cpus=1, gpus=1), capacity, None).count == 8


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (resources(cpus=16), r"needs 16 CPU, but the largest node has 8; lower .*cpus_per_worker"),
        (resources(gpus=2), r"needs 2 GPU, but the largest node has 1; lower .*gpus_per_worker"),
        (resources(workers=9, cpus=8), r"9 workers of 8 CPU, but the cluster has room for 8"),
    ],
)
def test_what_never_fits_is_refused_with_the_numbers(asked: Resources, message: str) -> None:
    capacity = Capacity((), (Nodes({"CPU": 8.0, "GPU": 1.0}, 8),), most=8)
    with pytest.raises(ClusterCannot, match=message):
        slots(asked, capacity, None)


def test_nodes_are_written_as_they_are_read() -> None:
    kinds = (Nodes({"CPU": 8.0, "GPU": 1.0, "memory": 1e9}, 3), Nodes({"CPU": 8.0, "GPU": 1.0}, 2))
    assert written_nodes(kinds) == ["5xCPU=8,GPU=1"]
    assert written_nodes(parse_nodes(["5xCPU=8,GPU=1"]).growth) == ["5xCPU=8,GPU=1"]
    with pytest.raises(InvalidInput, match="COUNTxRESOURCE=AMOUNT") as caught:
        parse_nodes(["8", "xCPU=1", "2xCPU=1"])
    assert len(caught.value.problems) == 2


# Files


@pytest.mark.parametrize("provider", LAUNCHED)
def test_rays_own_validation_accepts_what_is_generated(tmp_path: Path, provider: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(yaml.safe_load(template(provider, Layout()))))
    assert read(written(tmp_path, provider)).provider == provider


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("machine", [None, CPU])
def test_one_layout_means_the_same_everywhere(tmp_path: Path, provider: str, machine: Any) -> None:
    layout = Layout("mine", "s3://b/r", 5, *([machine] if machine else []), hosts=tuple("abcdef"))
    file = read(written(tmp_path, provider, layout))
    assert file.name == "mine"
    assert file.runs == "s3://b/r"
    assert file.capacity is not None
    count = slots(resources(cpus=7), file.capacity, None).count
    assert count == {"local": 6}.get(provider, 5)
    has_gpu = file.capacity.largest("GPU") == 1
    assert has_gpu == (machine is None)


def test_the_file_at_the_top_is_the_aws_template() -> None:
    assert (ROOT / "cluster.yaml").read_text(encoding="utf-8") == template("aws", Layout())


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_fresh_template_says_what_is_to_be_filled_in(tmp_path: Path, provider: str) -> None:
    unfilled = read(written(tmp_path, provider)).unfilled
    assert unfilled
    assert all(UNFILLED in str(problem.value) for problem in unfilled)


@pytest.mark.parametrize("provider", ["aws", "gcp"])
def test_the_head_trains_nothing_and_workers_come_from_zero(provider: str) -> None:
    content = yaml.safe_load(template(provider, Layout()))
    types = content["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    workers = {name: kind for name, kind in types.items() if name != "head"}
    assert {kind["min_workers"] for kind in workers.values()} == {0}
    spot, on_demand = workers["gpu-spot"], workers["gpu-on-demand"]
    assert spot["priority"] > on_demand["priority"]
    assert content["max_workers"] >= spot["max_workers"] + on_demand["max_workers"]
    assert on_demand["resources"] == {**spot["resources"], "gpu-on-demand": 1}


@pytest.mark.parametrize("provider", LAUNCHED)
def test_the_dashboard_stays_on_loopback_and_asks_for_the_token(provider: str) -> None:
    content = yaml.safe_load(template(provider, Layout()))
    head = content["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in head
    starts = (head, content["worker_start_ray_commands"][-1])
    assert all("RAY_AUTH_MODE=token" in start for start in starts)
    assert content["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


@pytest.mark.parametrize("provider", LAUNCHED)
def test_the_set_up_command_works_on_what_is_shipped(provider: str) -> None:
    content = yaml.safe_load(template(provider, Layout()))
    assert any("-c constraints.txt" in command for command in content["setup_commands"])
    for mount in content["file_mounts"].values():
        if mount.startswith("./"):
            assert (ROOT / mount).exists()


def test_kubernetes_gets_a_cluster_that_the_autoscaler_reads() -> None:
    content = yaml.safe_load(template("kuberay", Layout()))
    assert kubernetes.problems(content, "file") == []
    types = kubernetes.autoscaling(content)["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert types["gpu-on-demand"]["resources"]["gpu-on-demand"] == 1
    for group in content["spec"]["workerGroupSpecs"]:
        asked = group["template"]["spec"]["containers"][0]["resources"]["requests"]
        assert asked["cpu"] == group["resources"]["CPU"]
        assert asked["nvidia.com/gpu"] == group["resources"]["GPU"]


def test_a_ray_job_has_the_same_cluster_and_the_study() -> None:
    job = yaml.safe_load(kubernetes.job(Layout(), "ablate run losses"))
    cluster = yaml.safe_load(template("kuberay", Layout()))
    assert job["kind"] == "RayJob"
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]
    assert job["spec"]["entrypoint"] == "ablate run losses"


def take(path: str) -> Callable[[dict[str, Any]], Any]:
    """Removes what a dotted path leads to."""

    def change(content: dict[str, Any]) -> None:
        inner: Any = content
        *way, last = path.split(".")
        for part in way:
            inner = inner[int(part)] if part.isdigit() else inner[part]
        del inner[last]

    return change


@pytest.mark.parametrize(
    ("provider", "change", "message"),
    [
        ("aws", lambda c: c.update(idle_timeout_mins=5), "idle_timeout_mins"),
        ("aws", lambda c: c.update(max_workers="8"), "max_workers: .*not of type"),
        ("aws", lambda c: c.update(head_node_type="nope"), "must be one of"),
        ("aws", take("provider"), "provider: is missing"),
        ("aws", take("max_workers"), "max_workers: is missing"),
        ("aws", take("available_node_types"), "available_node_types: is missing"),
        ("aws", lambda c: c["provider"].update(type="fancy"), "fancy"),
        ("aws", lambda c: c["provider"].update(aws_credentials={"k": "v"}), "credentials do not"),
        ("aws", lambda c: c["metadata"].update(usd_per_hour={"head": "1"}), "must be a number"),
        ("local", take("provider.worker_ips"), "Ray refuses it"),
        ("kuberay", take("spec.rayVersion"), "spec.rayVersion: is missing"),
        ("kuberay", take("spec.workerGroupSpecs.0.maxReplicas"), "0.maxReplicas: is missing"),
        ("kuberay", take("spec.workerGroupSpecs.1.template"), "containers.0.image: is missing"),
        ("kuberay", lambda c: c.update(kind="RayService"), "one RayCluster, not 0"),
        (
            "kuberay",
            lambda c: c["spec"]["workerGroupSpecs"][0]["resources"].update(CPU="eight"),
            "autoscaler refuses it",
        ),
    ],
)
def test_a_mistake_in_a_file_is_named(
    tmp_path: Path, provider: str, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        read(changed(tmp_path, provider, change))


def test_a_file_that_is_not_there_or_not_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="ablate cluster template"):
        read(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(InvalidInput, match="is not YAML"):
        read(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(InvalidInput, match="must hold a mapping"):
        read(tmp_path / "list.yaml")


# Launching


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


@pytest.fixture
def aws(tmp_path: Path) -> ClusterFile:
    return read(written(tmp_path, "aws", Layout(runs="s3://bucket/ablate")))


def an_order(**changes: Any) -> steps.Order:
    settings: dict[str, Any] = {
        "study": "losses", "source": "losses", "arguments": ("--set", "a=1 2"),
        "report_arguments": ("--set", "a=1 2"), "runs": "s3://bucket/ablate", "into": Path("runs"),
        "job_id": "ablate-losses-1", "nodes": ("8xCPU=8,GPU=1",), "down": True,
    }  # fmt: skip
    return steps.Order(**{**settings, **changes})


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


def ablate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ablate.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


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


# Checking nodes


def test_a_node_that_does_not_see_the_run_folder_or_the_data_says_so(
    tmp_path: Path, tiny_collection: str
) -> None:
    from trainables.data.collections import fingerprint

    shared, other = str(tmp_path / "shared"), str(tmp_path / "other")
    Ledger(shared).store.write(".check/token/asked", b"token")
    known = {tiny_collection: fingerprint(tiny_collection)}
    assert look("n1", shared, "token", known) == []
    assert Ledger(shared).store.exists(".check/token/n1")
    (blind,) = look("n2", other, "token", known)
    assert "n2 (" in blind and f"does not see the run folder {other}" in blind
    changed, absent = look("n3", shared, "token", {tiny_collection: "x", "/no/such": "x"})
    assert "another content" in changed and "/no/such" in absent


# Results and cost


def test_fetching_brings_records_and_scores_but_no_checkpoint(tmp_path: Path) -> None:
    there, here = Ledger(tmp_path / "there"), Ledger(tmp_path / "here")
    there.study("s").write("plan.json", {"trials": [{"trial_id": "a"}, {"trial_id": "b"}]})
    there.study("s").open_test({"trials": ["c"]}, "0000")
    for trial in ("a", "c"):
        for part in ("checkpoint", "evaluations/x__test"):
            (tmp_path / "out" / part).mkdir(parents=True)
            (tmp_path / "out" / part / "file").write_text("content")
        there.publish(trial, tmp_path / "out")
        there.write(Record(trial, {}, {}, state="finished"))
    assert fetch("s", there, here) == 2
    assert sorted(here.store.children("trials")) == ["a", "c"]
    assert here.store.exists("trials/c/evaluations/x__test/file")
    assert not here.store.exists("trials/c/checkpoint")
    assert here.study("s").openings() == [{"trials": ["c"]}]
    assert fetch("s", there, here) == 2
    with pytest.raises(InvalidInput, match="known: s"):
        fetch("other", there, here)


def test_hours_of_nodes_become_money() -> None:
    rows = [
        {"time": 0.0, "nodes": 1, "types": {"head": 1}, "running": 0, "pending": 3},
        {"time": 60.0, "nodes": 3, "types": {"head": 1, "gpu-spot": 2}, "running": 2, "pending": 1},
        {"time": 3660.0, "nodes": 1, "types": {"head": 1}, "running": 0, "pending": 0},
        {"time": 9000.0, "nodes": 1, "types": {"head": 1}, "running": 0, "pending": 0},
    ]
    hours = nodes.node_hours(rows)
    assert hours == pytest.approx({"head": 61 / 60, "gpu-spot": 2.0})
    assert cost.spent(hours, {"head": 0.2, "gpu-spot": 0.5}).endswith(": 1.20 USD")
    assert "USD" not in cost.spent(hours, {"head": 0.2})


def test_prices_reach_the_study_with_its_command() -> None:
    prices = {"head": 0.2, "gpu-spot": 1.25}
    words = an_order(prices=cost.written_prices(prices)).entrypoint()
    given = [after for word, after in itertools.pairwise(words) if word == "--price"]
    assert cost.parse_prices(given) == prices
    with pytest.raises(InvalidInput) as caught:
        cost.parse_prices(["gpu", "cpu=-1", "=2", "head=inf", "spot=0.1"])
    assert [problem.value for problem in caught.value.problems] == [
        "gpu",
        "cpu=-1",
        "=2",
        "head=inf",
    ]


def test_the_expected_cost_counts_nodes_by_what_fits_on_them(
    aws: ClusterFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 hours of trials, four to a node of 8 CPUs: 4 hours of nodes; 32 at once, half an hour."""
    monkeypatch.setattr("ablate.plan.estimate.START_SECONDS", 0.0)
    sets = {"resources.cpus_per_worker": "2", "resources.max_concurrent_trials": "32"}
    plan = make_plan(load_study("quickstart", sets))
    seconds = 16 * 3600 / plan.trial_count
    earlier = [EarlierTrial(trial.flat, {"train": seconds}) for trial in plan.trials()]
    prices = {"head": 0.2, "gpu-spot": 0.5, "gpu-on-demand": 1.0}
    assert aws.capacity is not None
    guess, found = cost.foreseen(plan, aws.capacity, prices, earlier)
    assert (guess.slots, guess.core_hours) == (32, pytest.approx(32.0))
    assert found is not None
    assert (found.node_hours, found.nodes) == (pytest.approx(4.0), 8)
    assert found.usd == pytest.approx({"gpu-spot": 2.0, "gpu-on-demand": 4.0})
    assert found.head_usd == pytest.approx(0.2 * (seconds + TRIAL_SECONDS) / 3600)
    assert "2.00 USD on gpu-spot or 4.00 USD on gpu-on-demand, and 0.16 USD for the head" in str(
        found
    )
    _, unpriced = cost.foreseen(plan, aws.capacity, {}, earlier)
    assert "no prices" in str(unpriced)
    _, rest = cost.foreseen(plan, aws.capacity, prices, earlier, finished=plan.trial_count)
    assert rest is not None and rest.node_hours == 0.0


def test_a_plan_and_a_launch_say_the_same_of_a_cluster(tmp_path: Path) -> None:
    def priced(content: dict[str, Any]) -> None:
        content["metadata"]["usd_per_hour"] = {"head": 0.2, "gpu-spot": 0.5, "gpu-on-demand": 1.5}

    file, runs = str(changed(tmp_path, "aws", priced)), str(tmp_path / "runs")
    for number, trial in enumerate(make_plan(load_study("quickstart")).trials()):
        spec, seconds = dict(trial.flat), {"train": 500.0}
        Ledger(runs).write(Record(f"other{number}", spec, {}, "finished", seconds=seconds))
    planned = ablate("plan", "quickstart", "--cluster", file, "--runs", runs)
    launched = ablate("launch", "quickstart", "--cluster", file, "--dry-run", "--into", runs)
    assert planned.returncode == launched.returncode == 0, planned.stderr + launched.stderr
    (time, money) = launched.stderr.splitlines()[:2]
    assert time.startswith("Estimate: about ") and "from 20 earlier trials like these" in time
    assert "USD on gpu-spot" in money and "USD for the head" in money
    assert {time, money} <= set(planned.stdout.splitlines())
    too_large = ablate(
        "plan", "quickstart", "--cluster", file, "--set", "resources.cpus_per_worker=64"
    )
    assert too_large.returncode == 3 and "the largest node has 8" in too_large.stderr


class Quiet:
    """A watcher that looks away."""

    def started(self, trial_id: str) -> None: ...
    def progress(self, trial_id: str, metrics: Any) -> None: ...
    def ended(self, record: Record) -> None: ...


class NoFallback(nodes.Fallback):
    """Asks for nothing."""

    def __init__(self) -> None:
        super().__init__(0, 1)

    def consider(self, sample: nodes.Sample, pending: int) -> list[str]:
        return []

    def close(self) -> None:
        """Nothing to take back."""


def test_nodes_are_recorded_when_they_change_and_the_record_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "SAMPLE_SECONDS", 0.01)
    folder, notes = Ledger(tmp_path).study("s"), []
    seen: Iterator[Any] = iter([{"head": 1}, {"head": 1}, OSError("gone"), {"head": 1, "cpu": 2}])
    last: dict[str, Any] = {}

    def look() -> nodes.Sample:
        found = next(seen, None)
        if isinstance(found, Exception):
            raise found
        last["types"] = found or last["types"]
        return nodes.Sample(last["types"])

    for _ in range(2):
        recorder = nodes.Recorder(Quiet(), groups=False)
        recorder.expect(3)
        with nodes.Recording(folder, recorder, notes.append, look, NoFallback()):
            recorder.started("a")
            while last["types"] == {"head": 1}:
                pass
            recorder.ended(Record("a", {}, {}))
    rows = nodes.read(folder)
    assert {"nodes": 3, "types": {"cpu": 2, "head": 1}}.items() <= rows[-1].items()
    assert rows[0]["nodes"] == 1
    assert (rows[-1]["running"], rows[-1]["pending"]) == (0, 2)
    assert len(rows) >= 4
    assert len(notes) == 1 and "1 times OSError('gone')" in notes[0]


def test_trials_in_groups_run_from_their_first_step() -> None:
    recorder = nodes.Recorder(Quiet(), groups=True)
    recorder.expect(2)
    recorder.started("a")
    assert recorder.pending == 2
    recorder.progress("a", {"step": 1.0})
    assert recorder.pending == 1
    recorder.started("a")
    assert recorder.pending == 2


def test_on_demand_is_asked_for_when_spot_is_refused_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, int]] = []
    fallback = nodes.Fallback(nodes_at_most=3, trials_per_node=2)
    monkeypatch.setattr(fallback, "_ask", lambda name, count: asked.append((name, count)))
    monkeypatch.setattr(fallback, "_give_up_ready", lambda: None)
    clock = iter(range(0, 1000, 40))
    monkeypatch.setattr(nodes.time, "monotonic", lambda: float(next(clock)))
    refused = nodes.Sample({"head": 1, "gpu-spot": 1}, frozenset({"gpu-spot"}))
    assert fallback.consider(nodes.Sample({"head": 1}), pending=9) == []
    assert fallback.consider(refused, pending=0) == []
    assert fallback.consider(refused, pending=3) == []
    assert fallback.consider(refused, pending=3) == []
    assert "asking for 2 gpu-on-demand" in fallback.consider(refused, pending=3)[0]
    assert asked == [("gpu-on-demand", 2)]


def test_the_record_of_nodes_is_json_lines(tmp_path: Path) -> None:
    folder = Ledger(tmp_path).study("s")
    folder.write(nodes.FILE, json.dumps({"time": 1.0}) + "\n" + json.dumps({"time": 2.0}) + "\n")
    assert [row["time"] for row in nodes.read(folder)] == [1.0, 2.0]
    assert nodes.read(Ledger(tmp_path).study("other")) == []
