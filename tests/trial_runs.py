"""A trial in processes of its own: what the tests of training start, kill and start again.

python trial_runs.py WORLD_SIZE TASK_JSON KEEP_FOLDER [KILL_AT_STEP]
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from trainables.train import TrialTask, train_trial


class FolderReporter:
    """Keeps training checkpoints in a folder and dies at a given step."""

    def __init__(self, rank: int, world_size: int, keep: Path, kill_at: int | None) -> None:
        self.rank, self.world_size = rank, world_size
        self.keep, self.kill_at = keep, kill_at

    def progress(self, metrics: Mapping[str, float]) -> None:
        if self.kill_at is not None and metrics["step"] == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    dev = progress

    def save(self, folder: Path, step: int) -> None:
        if self.rank == 0:
            shutil.rmtree(self.keep, ignore_errors=True)
            folder.rename(self.keep)

    def restore(self) -> Path | None:
        return self.keep if self.keep.exists() else None


def work(rank: int, world_size: int, task: str, keep: str, kill_at: int | None) -> None:
    torch.set_num_threads(1)
    if world_size > 1:
        port = 29_400 + os.getppid() % 500
        dist.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size
        )
    reporter = FolderReporter(rank, world_size, Path(keep), kill_at)
    train_trial(TrialTask(**json.loads(task)), reporter)
    if world_size > 1:
        dist.destroy_process_group()


def main() -> None:
    world_size, task, keep = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    kill_at = int(sys.argv[4]) if len(sys.argv) > 4 else None
    if world_size == 1:
        work(0, 1, task, keep, kill_at)
    else:
        mp.spawn(work, args=(world_size, task, keep, kill_at), nprocs=world_size)


if __name__ == "__main__":
    main()
