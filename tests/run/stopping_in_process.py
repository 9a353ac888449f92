"""Runs a study as `study_in_process` does, and says after each phase what its trials left behind.

`free` means that every CPU of the cluster is idle again and no placement group is left.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from study_in_process import Lines  # its own folder: it is started as a script

from ablate.plan.planner import make_plan
from ablate.plan.study import load_study
from ablate.run.execution import StudyRun
from ablate.run.trial import Job

PATIENCE_SECONDS = 60.0


class Accounts(Lines):
    @contextmanager
    def phase(self, name: str, jobs: Sequence[Job], slots: int, to_come: int = 0) -> Iterator[None]:
        with super().phase(name, jobs, slots, to_come):
            yield
        began = time.monotonic()
        while _held() and time.monotonic() - began < PATIENCE_SECONDS:
            time.sleep(0.2)
        self.say("held" if _held() else "free", *_held())


def _held() -> list[str]:
    """What the cluster still lends to somebody."""
    import ray
    from ray.util import placement_group_table

    groups = [g for g in placement_group_table().values() if g["state"] != "REMOVED"]
    busy = ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0.0)
    return [f"{len(groups)}_groups"] * bool(groups) + [f"{busy}_CPUs"] * (busy > 0)


if __name__ == "__main__":
    done = StudyRun(make_plan(load_study(sys.argv[1])), sys.argv[2], Accounts()).run()
    print("done", done.trained, done.failed, done.stopped, len(done.left_stopped), flush=True)
