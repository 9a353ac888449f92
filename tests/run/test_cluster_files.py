"""Cluster files: what is generated, accepted and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablate.run.capacity import (
    slots,
)
from ablate.run.cluster import kubernetes
from ablate.run.cluster.file import read
from ablate.run.cluster.shapes import CPU, UNFILLED, Layout
from ablate.run.cluster.templates import PROVIDERS, template
from ablate.run.trial import Resources
from tests.run.cluster_files import ROOT, changed, written
from trainables.errors import InvalidInput

LAUNCHED = [name for name in PROVIDERS if name != "kuberay"]


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
    count = slots(Resources("runs", "cache", cpus=7.0), file.capacity, None).count
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


def test_the_log_of_a_ray_job_is_waited_for() -> None:
    """KubeRay makes the Job with the log when the cluster is ready, not when kubectl applies."""
    status = "--for=jsonpath='{.status.jobDeploymentStatus}'=Running"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    head = kubernetes.job(Layout("mine"), "ablate run losses")
    for text, name in ((readme, "ablate"), (head, "mine")):
        lines = [line.strip("# ") for line in text.splitlines()]
        waits = lines.index(f"kubectl wait {status} rayjob/{name} --timeout=15m")
        assert lines.index(f"kubectl logs --follow --pod-running-timeout=5m job/{name}") > waits


def take(path: str) -> Callable[[dict[str, Any]], Any]:
    """Removes what a dotted path leads to."""

    def change(content: dict[str, Any]) -> None:
        inner: Any = content
        *way, last = path.split(".")
        for part in way:
            inner = inner[int(part)] if part.isdigit() else inner[part]
        del inner[last]

    return change


def prices(value: Any) -> Callable[[dict[str, Any]], Any]:
    """Puts prices into a file of the launcher."""
    return lambda content: content["metadata"].update(usd_per_hour=value)


def annotated(text: str) -> Callable[[dict[str, Any]], Any]:
    """Puts prices into a file of KubeRay."""
    return lambda content: content["metadata"]["annotations"].update({kubernetes.PRICES: text})


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
        ("aws", lambda c: c.update(provider=None), "provider: is missing"),
        ("aws", lambda c: c.update(provider="aws"), "provider: must be a mapping"),
        ("aws", lambda c: c.update(metadata=3), "metadata: must be a mapping"),
        ("aws", lambda c: c.update(file_mounts=["x"]), "file_mounts: must be a mapping"),
        ("aws", lambda c: c.update(docker=3), "docker|Ray refuses it"),
        ("aws", prices(3), "usd_per_hour: must be a mapping"),
        ("aws", prices({"gpu-spto": 1}), "gpu-spto: is no type .* did you mean 'gpu-spot'"),
        ("aws", prices({"head": -1}), "usd_per_hour.head: must be a number"),
        ("aws", prices({"head": float("nan")}), "usd_per_hour.head: must be a number"),
        ("aws", prices({"head": True}), "usd_per_hour.head: must be a number"),
        ("aws", prices({"head": -1, "hed": 1}), "head: must be a number.*\n.*hed: is no type"),
        ("local", lambda c: c["metadata"].update(each_host_has=3), "each_host_has: must be a map"),
        ("local", lambda c: c["metadata"].update(each_host_has={"CPU": "x"}), "has.CPU: must be a"),
        ("local", prices({"nodes": 1}), "did you mean 'node'"),
        ("kuberay", lambda c: c.update(metadata=3), "metadata: must be a mapping"),
        ("kuberay", lambda c: c["metadata"].update(annotations=3), "annotations: must be a map"),
        ("kuberay", annotated("x{"), "usd-per-hour: must be a JSON object"),
        ("kuberay", annotated("[1]"), "usd-per-hour: must be a mapping"),
        ("kuberay", annotated('{"gpu-spto": 1}'), "did you mean 'gpu-spot'"),
        ("kuberay", annotated('{"gpu-spot": NaN}'), "gpu-spot: must be a number"),
        (
            "kuberay",
            lambda c: c["spec"]["workerGroupSpecs"][0].update(minReplicas="x"),
            "autoscaler refuses it: 'x' is not of type",
        ),
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


def test_a_folder_or_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read: Is a directory"):
        read(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"cluster_name: caf\xe9")
    with pytest.raises(InvalidInput, match="is not UTF-8 text: byte 17"):
        read(tmp_path / "latin.yaml")


@pytest.mark.parametrize("scalar", ["!!bool foo", "2024-13-45", "!!int ''", "!!timestamp x"])
def test_a_scalar_that_is_no_value_is_named_with_its_line(tmp_path: Path, scalar: str) -> None:
    (tmp_path / "bad.yaml").write_text(f"cluster_name: x\nprovider: {{type: {scalar}}}\n")
    with pytest.raises(InvalidInput, match=r"is not YAML: cannot read .* line 2"):
        read(tmp_path / "bad.yaml")


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", f"a: {'[' * 2000}{']' * 2000}"])
def test_a_value_without_an_end_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "deep.yaml").write_text(text)
    with pytest.raises(InvalidInput, match="within itself, or too deep"):
        read(tmp_path / "deep.yaml")


@pytest.mark.parametrize("provider", ["aws", "local", "kuberay"])
def test_prices_of_the_files_own_types_are_taken(tmp_path: Path, provider: str) -> None:
    given = {"head": 0.2, "node": 1} if provider == "local" else {"head": 0.2, "gpu-spot": 1}
    change = annotated(json.dumps(given)) if provider == "kuberay" else prices(given)
    assert read(changed(tmp_path, provider, change)).usd_per_hour == given
