"""Placement groups that nobody uses any more: CPUs and GPUs held by a worker group that is gone.

A group's controller makes a placement group, then starts workers in it. If it ends in between
(killed with the trial that it serves, or because a worker died at its start), the placement group
stays until the job ends, for Ray counts on the job, and Ray Train's own cleaner learns of it only
once the workers run. A sweep would wait for its CPUs for ever.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

SETTLE_SECONDS = 5.0
"""Between a placement group's making and its first worker there is less than this."""
MOST = 10_000
"""Placement groups, and living actors, that Ray lists."""
LOOK_SECONDS = 20.0
"""Between two looks while a group runs."""


@contextlib.contextmanager
def freeing_abandoned(bundle: Mapping[str, float]) -> Iterator[None]:
    """While the block runs, `free_abandoned` looks again and again: workers of a lost group may end
    some time after it."""
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            free_abandoned(bundle)
            over.wait(LOOK_SECONDS)

    threading.Thread(target=look, name="free placement groups", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def free_abandoned(bundle: Mapping[str, float], pause: float = SETTLE_SECONDS) -> list[str]:
    """Remove this job's placement groups of such bundles without a living actor; returns their ids.

    `bundle` is what a worker asks for: Tune's own placement groups, which may well wait for an
    actor, ask for something else. Must be called within a Ray job. Where Ray's state cannot be
    asked, nothing is removed.
    """
    import ray
    from ray.util import remove_placement_group
    from ray.util.placement_group import PlacementGroup
    from ray.util.state.exception import RayStateApiException

    try:
        suspects = _empty(bundle)
        if not suspects:
            return []
        time.sleep(pause)
        abandoned = sorted(suspects & _empty(bundle))
    except (RayStateApiException, ConnectionError):
        return []
    for name in abandoned:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(name)))
    return abandoned


def _empty(bundle: Mapping[str, float]) -> set[str]:
    """Ids of the job's placement groups of such bundles, made already, with no living actor."""
    import ray
    from ray.util import state

    here = ray.get_runtime_context()
    job: Any = ("creator_job_id", "=", here.get_job_id())
    made: Any = ("state", "=", "CREATED")
    living: Any = ("state", "!=", "DEAD")
    asked: dict[str, Any] = {"address": here.gcs_address, "limit": MOST, "detail": True}
    groups = state.list_placement_groups(filters=[job, made], **asked)
    actors = state.list_actors(filters=[living], **asked) if groups else ()
    held = {actor.placement_group_id for actor in actors}
    alike = (g for g in groups if all(b["unit_resources"] == bundle for b in g.bundles or ()))
    return {group.placement_group_id for group in alike} - held
