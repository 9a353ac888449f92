"""The layout for KubeRay: a RayCluster that stays, or a RayJob that brings its own and goes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ablate.run.cluster.reading import Kinds, wrong_kinds, wrong_prices
from ablate.run.cluster.shapes import EXTRAS, HEAD, UNFILLED, Layout, Machine, Workers
from ablate.run.cluster.text import comment, dump
from trainables.errors import Problem

API = "ray.io/v1"
IMAGE = f"{UNFILLED}REGISTRY/ablate:0.1.0"
KEPT_CPUS, KEPT_GIB = 1, 4
"""What a pod leaves of its machine to Kubernetes; one that asks for all is never placed."""
RUNS, PRICES = "ablate/runs", "ablate/usd-per-hour"
"""Annotations: what `metadata` holds in a file of the launcher."""


_POD = (
    ("", dict),
    (".template", dict),
    (".template.spec", dict),
    (".template.spec.containers", list),
    (".template.spec.containers.*", dict),
    (".template.spec.containers.*.resources", dict),
    (".template.spec.containers.*.resources.limits", dict),
)
_KINDS: Kinds = (
    ("metadata", dict),
    ("metadata.name", str),
    ("metadata.annotations", dict),
    ("metadata.annotations.*", str),
    ("spec", dict),
    *((f"spec.headGroupSpec{key}", kind) for key, kind in _POD),
    ("spec.workerGroupSpecs", list),
    *((f"spec.workerGroupSpecs.*{key}", kind) for key, kind in _POD),
)


def manifest(layout: Layout) -> str:
    """A RayCluster for `kubectl apply`, or for `ablate launch --cluster`."""
    content = {
        "apiVersion": API,
        "kind": "RayCluster",
        "metadata": {
            "name": layout.name,
            "annotations": {RUNS: layout.runs_in("s3://"), PRICES: json.dumps({})},
        },
        "spec": _cluster(layout),
    }
    return comment(_ABOUT.format(image=layout.image(layout.machine))) + dump(content)


def job(layout: Layout, entrypoint: str) -> str:
    """A RayJob: the cluster, the study, and the cluster's end when the study has ended."""
    content = {
        "apiVersion": API,
        "kind": "RayJob",
        "metadata": {"name": layout.name},
        "spec": {
            "entrypoint": entrypoint,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 60,
            "backoffLimit": 3,
            "rayClusterSpec": _cluster(layout),
        },
    }
    return comment(_JOB.format(name=layout.name)) + dump(content)


def offers(kind: Workers) -> dict[str, int]:
    """What a pod of this kind offers to Ray."""
    return {**kind.resources, "CPU": kind.resources["CPU"] - KEPT_CPUS}


def autoscaling(content: Mapping[str, Any]) -> dict[str, Any]:
    """A valid RayCluster as the autoscaler in the head's pod reads it."""
    from ray.autoscaler._private.kuberay import autoscaling_config

    about = {"namespace": "default", **content["metadata"]}
    derived: dict[str, Any] = autoscaling_config._derive_autoscaling_config_from_ray_cr(
        {**content, "metadata": about}
    )
    return derived


def problems(content: Mapping[str, Any], place: str) -> list[Problem]:
    """What KubeRay or its autoscaler would refuse in a RayCluster, as far as can be seen here."""
    found = wrong_kinds(content, _KINDS, place)
    if found:
        return found
    spec = content.get("spec") or {}
    found = [
        Problem(key, "is missing", place=place)
        for key, value in (
            ("metadata.name", (content.get("metadata") or {}).get("name")),
            ("spec.rayVersion", spec.get("rayVersion")),
            ("spec.headGroupSpec", spec.get("headGroupSpec")),
            ("spec.workerGroupSpecs", spec.get("workerGroupSpecs")),
        )
        if not value
    ]
    groups = {"spec.headGroupSpec": spec.get("headGroupSpec") or {}}
    for index, group in enumerate(spec.get("workerGroupSpecs") or ()):
        groups[f"spec.workerGroupSpecs.{index}"] = group
        counts = ("groupName", "minReplicas", "maxReplicas")
        found += [
            Problem(f"spec.workerGroupSpecs.{index}.{key}", "is missing", place=place)
            for key in counts
            if key not in group
        ]
    for key, group in groups.items():
        found += _pod_problems(key, group, place)
    if found:
        return found
    from jsonschema import ValidationError

    try:
        autoscaling(content)
    except ValidationError as error:
        return [Problem("spec", f"Ray's autoscaler refuses it: {error.message}", place=place)]
    except (AssertionError, LookupError, TypeError, ValueError, AttributeError) as error:
        return [Problem("spec", f"Ray's autoscaler refuses it: {error}", place=place)]
    return []


def prices(content: Mapping[str, Any], place: str) -> tuple[dict[str, Any], list[Problem]]:
    """The prices in the annotation of a valid RayCluster, by worker group, and their mistakes."""
    text = (content["metadata"].get("annotations") or {}).get(PRICES) or "{}"
    key = f"metadata.annotations.{PRICES}"
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        rule = 'must be a JSON object, as in {"gpu-spot": 0.4}'
        return {}, [Problem(key, rule, text, place=place)]
    groups = [str(group["groupName"]) for group in content["spec"]["workerGroupSpecs"]]
    wrong = wrong_prices(key, found, ["head", "headgroup", *groups], place)
    return ({}, wrong) if wrong else (found or {}, [])


def _pod_problems(key: str, group: Mapping[str, Any], place: str) -> list[Problem]:
    pod = (group.get("template") or {}).get("spec") or {}
    containers = pod.get("containers") or [{}]
    found = []
    if not containers[0].get("image"):
        found.append(f"{key}.template.spec.containers.0.image")
    limits = (containers[0].get("resources") or {}).get("limits") or {}
    found += [
        f"{key}.template.spec.containers.0.resources.limits.{name}"
        for name in ("cpu", "memory")
        if name not in limits
    ]
    return [Problem(where, "is missing", place=place) for where in found]


def _cluster(layout: Layout) -> dict[str, Any]:
    return {
        "rayVersion": layout.ray,
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"version": "v2", "idleTimeoutSeconds": 60 * layout.idle_minutes},
        "headGroupSpec": {
            "serviceType": "ClusterIP",
            "rayStartParams": {"num-cpus": "0"},
            "template": _pod("ray-head", HEAD, {}),
        },
        "workerGroupSpecs": [_group(kind) for kind in layout.workers],
    }


def _group(kind: Workers) -> dict[str, Any]:
    """A worker group: its pods go to nodes that the labels of the Kubernetes cluster call spot."""
    placed: dict[str, Any] = {
        "nodeSelector": {"ablate/market": "spot" if kind.spot else "on-demand"}
    }
    if kind.machine.gpus:
        placed["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    return {
        "groupName": kind.name,
        "replicas": 0,
        "minReplicas": 0,
        "maxReplicas": kind.most,
        "rayStartParams": {},
        "resources": {key: str(amount) for key, amount in offers(kind).items()},
        "template": _pod("ray-worker", kind.machine, placed),
    }


def _pod(name: str, machine: Machine, placed: Mapping[str, Any]) -> dict[str, Any]:
    amounts = {
        "cpu": str(machine.cpus - KEPT_CPUS),
        "memory": f"{machine.memory_gib - KEPT_GIB}Gi",
    }
    if machine.gpus:
        amounts["nvidia.com/gpu"] = str(machine.gpus)
    container = {
        "name": name,
        "image": IMAGE,
        "resources": {"limits": amounts, "requests": amounts},
    }
    spec = {"serviceAccountName": "ablate", "restartPolicy": "Never", "containers": [container]}
    return {"spec": {**spec, **placed}}


_ABOUT = f"""\
A Ray cluster on Kubernetes, for KubeRay 1.6 or newer: a head that trains nothing, and workers that
come when trials wait for them. Fill in what starts with {UNFILLED}, then

  ablate launch STUDY --cluster THIS-FILE --down

The image holds ablate and its pinned libraries. Build it in a checkout, from this Dockerfile:

  FROM {{image}}
  COPY --chown=ray . /home/ray/ablate
  RUN cd /home/ray/ablate && pip install --no-cache-dir -c constraints.txt '.[{EXTRAS}]'

Nodes are told apart by the label ablate/market: spot or on-demand. The service account `ablate`
must be allowed to read and write the run folder; no credential stands in this file. KubeRay makes
the token that the head asks for (authOptions) and keeps it in a Secret. The dashboard and all other
ports stay within the Kubernetes cluster (ClusterIP); `ablate launch` reaches them by port-forward.
"""
_JOB = """\
The study as one object: KubeRay brings the cluster up, runs the study, and takes the cluster down.
  kubectl apply -f THIS-FILE
  kubectl wait --for=jsonpath='{{.status.jobDeploymentStatus}}'=Running rayjob/{name} --timeout=15m
  kubectl logs --follow --pod-running-timeout=5m job/{name}
The job that has the log exists only once the cluster is ready; hence the wait.
A head that is lost is brought up again (backoffLimit), and the study goes on from its ledger.
"""
