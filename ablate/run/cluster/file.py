"""A cluster file as ablate reads it: what the cluster may grow to, its run folder, its prices."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.run.capacity import Capacity, Nodes
from ablate.run.cluster import kubernetes
from ablate.run.cluster.reading import (
    Kinds,
    documents_of,
    wrong_amounts,
    wrong_kinds,
    wrong_prices,
)
from ablate.run.cluster.shapes import ON_DEMAND, SPOT, UNFILLED
from trainables.errors import InvalidInput, Problem

_UNFIT = (LookupError, ValueError, TypeError, AttributeError, AssertionError)
"""What Ray raises, besides its own errors, for a value that it did not think of."""
SECRETS = ("aws_credentials", "gcp_credentials", "aws_secret_access_key", "auth_token")


@dataclass(frozen=True)
class ClusterFile:
    """A valid file. `capacity` is None when it does not say what its nodes have."""

    path: Path
    provider: str
    name: str
    capacity: Capacity | None
    runs: str | None
    usd_per_hour: Mapping[str, float]
    """Price of a node type; types without a price are left out."""
    mounts: tuple[str, ...]
    """Local paths that `ray up` copies to the nodes."""
    unfilled: tuple[Problem, ...]
    """Places that still wait for what only the user knows."""

    @property
    def on_kubernetes(self) -> bool:
        """Whether kubectl rather than Ray's launcher brings this cluster up."""
        return self.provider == "kuberay"


def read(path: Path) -> ClusterFile:
    """The file at `path`; raises InvalidInput with every mistake that can be seen in it."""
    documents = documents_of(path)
    secrets = [
        Problem(key, "credentials do not belong in this file", place=str(path))
        for document in documents
        for key, _ in _leaves(document)
        if any(part in SECRETS for part in key.split("."))
    ]
    if secrets:
        raise InvalidInput(secrets)
    if any("apiVersion" in document for document in documents):
        return _kubernetes(path, documents)
    return _launcher(path, documents[0])


def _launcher(path: Path, content: dict[str, Any]) -> ClusterFile:
    wrong = _wrong(content, str(path))
    if wrong:
        raise InvalidInput(wrong)
    prepared = _prepare(path, content)
    about = content.get("metadata") or {}
    if content["provider"]["type"] == "local":
        capacity = _hosts(content, about.get("each_host_has"))
    else:
        capacity = _capacity(prepared)
    return ClusterFile(
        path=path,
        provider=content["provider"]["type"],
        name=content["cluster_name"],
        capacity=capacity,
        runs=about.get("runs"),
        usd_per_hour=_prices(about.get("usd_per_hour") or {}),
        mounts=tuple((content.get("file_mounts") or {}).values()),
        unfilled=_unfilled(path, content),
    )


def _kubernetes(path: Path, documents: list[dict[str, Any]]) -> ClusterFile:
    clusters = [document for document in documents if document.get("kind") == "RayCluster"]
    if len(clusters) != 1:
        rule = f"must hold one RayCluster, not {len(clusters)}; a RayJob is run by kubectl apply"
        raise InvalidInput([Problem("kind", rule, place=str(path))])
    content = clusters[0]
    problems = kubernetes.problems(content, str(path))
    if problems:
        raise InvalidInput(problems)
    prices, wrong = kubernetes.prices(content, str(path))
    if wrong:
        raise InvalidInput(wrong)
    notes = content["metadata"].get("annotations") or {}
    return ClusterFile(
        path=path,
        provider="kuberay",
        name=content["metadata"]["name"],
        capacity=_capacity(kubernetes.autoscaling(content)),
        runs=notes.get(kubernetes.RUNS),
        usd_per_hour=_prices(prices),
        mounts=(),
        unfilled=_unfilled(path, content),
    )


_KINDS: Kinds = (
    ("provider", dict),
    ("provider.type", str),
    ("cluster_name", str),
    ("metadata", dict),
    ("metadata.runs", str),
    ("file_mounts", dict),
    ("file_mounts.*", str),
    ("available_node_types", dict),
    ("available_node_types.*", dict),
    ("available_node_types.*.resources", dict),
)


def _wrong(content: Mapping[str, Any], place: str) -> list[Problem]:
    """What is missing or of a wrong kind, before Ray has seen the file."""
    provider = content.get("provider")
    kind = provider.get("type") if isinstance(provider, dict) else None
    needed = [
        "cluster_name",
        "provider",
        *(["provider.type"] if isinstance(provider, dict) else []),
    ]
    if kind not in ("local", None):
        needed += ["max_workers", "available_node_types"]
    present = {**content, "provider.type": kind}
    found = [Problem(key, "is missing", place=place) for key in needed if present.get(key) is None]
    found += wrong_kinds(content, _KINDS, place)
    about = content.get("metadata")
    if not isinstance(about, dict):
        return found
    types = content.get("available_node_types")
    known = [str(name) for name in types] if isinstance(types, dict) else []
    if kind == "local":
        known += ["head", "node"]
        amounts = about.get("each_host_has")
        found += wrong_amounts("metadata.each_host_has", amounts, place)
    key = "metadata.usd_per_hour"
    return found + wrong_prices(key, about.get("usd_per_hour"), known, place)


def _prepare(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """The file as Ray's launcher completes and accepts it."""
    import copy

    from click import ClickException
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    place = str(path)
    try:
        with _silent():
            prepared: dict[str, Any] = prepare_config(copy.deepcopy(content))
            validate_config(prepared)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.absolute_path) or "the file"
        raise InvalidInput([Problem(key, error.message, place=place)]) from None
    except (ClickException, NotImplementedError, *_UNFIT) as error:
        text = " ".join(str(getattr(error, "message", error)).split())
        raise InvalidInput([Problem("the file", f"Ray refuses it: {text}", place=place)]) from None
    return prepared


def _capacity(prepared: Mapping[str, Any]) -> Capacity:
    """What the node types add up to; one that stands in for another gives no room of its own."""
    head = prepared["head_node_type"]
    types = {
        name: settings
        for name, settings in prepared["available_node_types"].items()
        if name.removesuffix(ON_DEMAND) + SPOT not in prepared["available_node_types"]
        or not name.endswith(ON_DEMAND)
    }
    growth = [
        Nodes(settings["resources"], settings.get("max_workers", prepared["max_workers"]))
        for name, settings in types.items()
        if name != head
    ]
    present = (Nodes(types[head]["resources"], 1),)
    return Capacity(present, tuple(growth), prepared["max_workers"])


def _hosts(content: Mapping[str, Any], each: Mapping[str, float] | None) -> Capacity | None:
    if not each:
        return None
    return Capacity((Nodes(each, 1 + len(content["provider"].get("worker_ips", ()))),))


def _prices(prices: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(price) for key, price in prices.items() if price is not None}


def _unfilled(path: Path, content: Mapping[str, Any]) -> tuple[Problem, ...]:
    return tuple(
        Problem(key, "must be filled in", value, place=str(path))
        for key, value in _leaves(content)
        if isinstance(value, str) and UNFILLED in value
    )


def _leaves(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values, of everything in the content."""
    if isinstance(content, Mapping):
        pairs = [(str(key), value) for key, value in content.items()]
    elif isinstance(content, list):
        pairs = [(str(index), value) for index, value in enumerate(content)]
    else:
        yield prefix, content
        return
    for key, value in pairs:
        yield from _leaves(value, f"{prefix}.{key}" if prefix else key)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """What Ray prints about a file that it refuses is in the exception too."""
    import logging

    logging.disable(logging.WARNING)
    try:
        sink = io.StringIO()
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            yield
    finally:
        logging.disable(logging.NOTSET)
