"""The cluster that ablate proposes, stated once: `templates` and `kubernetes` spell it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata

PYTHON = "py311"
"""The Python of Ray's images for which constraints.txt was tested."""
EXTRAS = "cpu,quickstart"
UNFILLED = "YOUR-"
"""Marks what only its user can fill in: `s3://YOUR-BUCKET/ablate`."""
SHIPPED = (
    "ablate", "trainables", "search_spaces",
    "pyproject.toml", "constraints.txt", "README.md", "LICENSE",
)  # fmt: skip
"""What pip needs of a checkout; nothing else of it travels to a machine."""
SPOT, ON_DEMAND = "-spot", "-on-demand"
"""Endings of the names of node types. When the machines of NAME-spot are refused, a sweep asks for
NAME-on-demand in their place: such nodes have one unit of a resource of their own name."""


@dataclass(frozen=True)
class Machine:
    """A kind of machine: what Ray may use of it, and each provider's name for it."""

    cpus: int
    gpus: int
    memory_gib: int
    names: Mapping[str, str]


HEAD = Machine(4, 0, 16, {"aws": "m6i.xlarge", "gcp": "n2-standard-4"})
"""Drives and trains nothing, so Ray is told that it has no CPU."""
GPU = Machine(8, 1, 32, {"aws": "g6.2xlarge", "gcp": "g2-standard-8"})
CPU = Machine(8, 0, 32, {"aws": "m6i.2xlarge", "gcp": "n2-standard-8"})


@dataclass(frozen=True)
class Workers:
    """A node type that comes when trials wait for it and goes when it is idle."""

    name: str
    machine: Machine
    spot: bool
    most: int

    @property
    def resources(self) -> dict[str, int]:
        """What a node of this type offers to Ray."""
        amounts = {"CPU": self.machine.cpus}
        if self.machine.gpus:
            amounts["GPU"] = self.machine.gpus
        return amounts if self.spot else amounts | {self.name: 1}

    @property
    def priority(self) -> int:
        """Of two types that serve a trial equally well, the autoscaler takes the higher."""
        return 2 if self.spot else 1


@dataclass(frozen=True)
class Layout:
    """A head, and up to `most` workers of `machine`: on spot where it can be, else on demand."""

    name: str = "ablate"
    runs: str | None = None
    most: int = 8
    machine: Machine = GPU
    idle_minutes: int = 5
    hosts: tuple[str, ...] = ()
    """On premise only: the head's address, then the workers'."""
    ray: str = field(default_factory=lambda: metadata.version("ray"))

    @property
    def workers(self) -> tuple[Workers, ...]:
        """Both node types, the preferred first."""
        kind = "gpu" if self.machine.gpus else "cpu"
        return (
            Workers(kind + SPOT, self.machine, True, self.most),
            Workers(kind + ON_DEMAND, self.machine, False, self.most),
        )

    @property
    def types(self) -> tuple[str, ...]:
        """Names of all node types, the head's first."""
        return ("head", *(kind.name for kind in self.workers))

    def image(self, machine: Machine) -> str:
        """Ray's own image for a machine, of the Ray and Python that ablate is tested with."""
        return f"rayproject/ray:{self.ray}-{PYTHON}-{'gpu' if machine.gpus else 'cpu'}"

    def runs_in(self, bucket: str) -> str:
        """The run folder, or one below a bucket that is still to be named."""
        return self.runs or f"{bucket}{UNFILLED}BUCKET/ablate"
