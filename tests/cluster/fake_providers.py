"""Ray's fake provider of nodes, nearer to a real one."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from ray._private import parameter
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE

numbers = count(1)


class Provider(FakeMultiNodeProvider):  # type: ignore[misc]
    """Gives each node a folder of its own for the code of jobs, as nodes on machines have.

    Without that, a node that comes replaces the folder in which the driver of the job is at work.
    """

    def create_node_with_resources_and_labels(
        self, node_config: Any, tags: dict[str, str], count: int, resources: Any, labels: Any
    ) -> Any:
        with separate_folder(f"runtime_resources_{next(numbers)}"):
            return super().create_node_with_resources_and_labels(
                node_config, tags, count, resources, labels
            )


class RefusingProvider(Provider):
    """A cloud that has no machine to give for nodes of the types NAME-spot."""

    def create_node_with_resources_and_labels(
        self, node_config: Any, tags: dict[str, str], count: int, resources: Any, labels: Any
    ) -> Any:
        if tags[TAG_RAY_USER_NODE_TYPE].endswith("-spot"):
            raise RuntimeError("InsufficientInstanceCapacity")
        return super().create_node_with_resources_and_labels(
            node_config, tags, count, resources, labels
        )


@contextmanager
def separate_folder(name: str) -> Iterator[None]:
    """Nodes that are started in the block keep the code of jobs in a folder of this name."""
    original = parameter.RayParams
    parameter.RayParams = functools.partial(original, runtime_env_dir_name=name)
    try:
        yield
    finally:
        parameter.RayParams = original
