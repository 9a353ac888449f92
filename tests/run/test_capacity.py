"""Room: what fits on a cluster, what never will."""

from __future__ import annotations

import pytest

from ablate.run.capacity import (
    Capacity,
    ClusterCannot,
    Nodes,
    parse_nodes,
    slots,
    written_nodes,
)
from ablate.run.trial import Resources
from trainables.errors import InvalidInput


def resources(workers: int = 1, cpus: float = 1.0, gpus: float = 0.0) -> Resources:
    return Resources("runs", "cache", workers, cpus, gpus)


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
