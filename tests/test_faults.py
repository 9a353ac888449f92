"""Whose fault a failed trial is: the machines', which is worth another try, or its own."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ablate.run import trial
from ablate.run.events import Events
from ablate.run.ledger import Ledger, Record
from ablate.run.store import StoreUnreachable
from ablate.run.trial import Job, Resources, execute, is_settled
from trainables import worker
from trainables.errors import InvalidInput, Problem
from trainables.faults import Lost, is_out_of_memory, is_own, out_of_memory, reason_of
from trainables.train import Outcome, TrainingFailed, TrialTask

SPEC = {"optim.chunk_size": None, "optim.batch_size": 64, "encoder.passage_length": 256}
WANTED = {"tiny/dev": "f"}


def raised(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - the error is what is looked at
        return error
    raise AssertionError("nothing was raised")


def no_memory() -> list[BaseException]:
    """What memory that is short looks like: real errors, and those of a GPU in their own words."""
    from ray.exceptions import OutOfMemoryError

    return [
        MemoryError(),
        raised(lambda: np.ones(1 << 50)),
        raised(lambda: torch.empty(1 << 50)),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("NCCL error: unhandled cuda error. Cuda failure 2 'out of memory'"),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        OutOfMemoryError("Task was killed due to the node running low on memory."),
    ]


def machines() -> list[BaseException]:
    from ray.exceptions import ActorDiedError, NodeDiedError, WorkerCrashedError
    from safetensors import SafetensorError

    full = "Error while serializing: I/O error: No space left on device (os error 28)"
    return [
        SafetensorError(full),
        RuntimeError(
            "[enforce fail at inline_container.cc:862] PytorchStreamWriter failed writing "
            "file data/0: file write failed"
        ),
        ActorDiedError(),
        WorkerCrashedError(),
        NodeDiedError("node 1 is dead"),
        OSError(errno.ENOSPC, "No space left on device", "/runs/trials/a"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        TimeoutError("no answer"),
        StoreUnreachable("s3://bucket/runs cannot be reached: timeout"),
        RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"),
        RuntimeError("NCCL communicator was aborted on rank 1."),
        torch.distributed.DistNetworkError("The client socket has timed out after 60000ms"),
        torch.distributed.DistStoreError("wait timeout after 300000ms, keys: /default_pg/0"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"),
        Lost("its worker group was lost 4 times in a row without progress; ActorDiedError: gone"),
    ]


def own() -> list[BaseException]:
    return [
        InvalidInput([Problem("data.train", "has no split", "nq/dve", "nq/dev")]),
        TrainingFailed("the loss is not finite at step 3"),
        ValueError("shapes differ"),
        KeyError("q1"),
        raised(lambda: torch.ones(2, 3) @ torch.ones(2, 3)),
        RuntimeError("CUDA error: device-side assert triggered"),
        FloatingPointError("the encoder's vectors are not finite"),
    ]


def named(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:30]}"


@pytest.mark.parametrize("error", no_memory(), ids=named)
def test_memory_that_is_short_is_named_with_the_setting_that_helps(error: BaseException) -> None:
    assert is_out_of_memory(error) and is_own(error)
    reason = reason_of(error, SPEC)
    assert reason.startswith("out of memory; set optim.chunk_size, which changes no result, or ")
    assert "optim.batch_size (64)" in reason and "encoder.passage_length (256)" in reason


@pytest.mark.parametrize("error", machines(), ids=named)
def test_faults_of_machines_are_not_the_trials(error: BaseException) -> None:
    assert not is_own(error) and not is_out_of_memory(error)
    assert reason_of(error, SPEC) and "\n" not in reason_of(error, SPEC)


@pytest.mark.parametrize("error", own(), ids=named)
def test_a_trials_own_errors_are_its_own(error: BaseException) -> None:
    assert is_own(error) and not is_out_of_memory(error)
    assert reason_of(error, SPEC) and "\n" not in reason_of(error, SPEC)


def test_the_setting_that_helps_depends_on_what_is_set() -> None:
    assert "lower optim.chunk_size (16), which changes no result" in out_of_memory(
        {**SPEC, "optim.chunk_size": 16}
    )
    assert "chunk_size" not in out_of_memory({**SPEC, "optim.chunk_size": 1})


def test_reasons_are_one_line_for_a_person() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/runs/trials/a")
    assert reason_of(full, SPEC) == "no space left on the disk of /runs/trials/a"
    assert reason_of(TrainingFailed("the loss is not finite"), SPEC) == "the loss is not finite"
    assert reason_of(ValueError("one\ntwo"), SPEC) == "ValueError: one"
    invalid = InvalidInput([Problem("a", "is wrong"), Problem("b", "is too")])
    assert reason_of(invalid, SPEC) == "a: is wrong; b: is too"


# In one process


def run(error: BaseException, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    """The record of a trial that ends in `error`."""

    def fails(*_: Any) -> Outcome:
        raise error

    monkeypatch.setattr(trial, "_run", fails)
    job = Job("t0", "cell", 0, SPEC, SPEC, {}, (), WANTED)
    return execute(job, Resources(str(runs), str(runs)), lambda metrics: None)


@pytest.mark.parametrize("error", [*no_memory(), *own()], ids=named)
def test_a_trial_that_failed_by_itself_is_settled(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run(error, tmp_path, monkeypatch)
    assert (record.state, record.own_fault) == ("failed", True)
    assert record.reason == reason_of(error, SPEC) and record.log_tail
    assert Ledger(tmp_path).record("t0") == record and is_settled(record, WANTED)


@pytest.mark.parametrize(
    "error", [e for e in machines() if not isinstance(e, StoreUnreachable)], ids=named
)
def test_a_trial_that_machines_failed_is_run_again(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run(error, tmp_path, monkeypatch)
    assert (record.state, record.own_fault) == ("failed", False)
    assert not is_settled(record, WANTED)
    again = run(ValueError("now by itself"), tmp_path, monkeypatch)
    assert (again.attempts, again.own_fault) == (2, True) and is_settled(again, WANTED)


def test_a_trial_whose_run_folder_is_away_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no place for its end; its record says that it runs, and another driver takes it."""
    with pytest.raises(StoreUnreachable):
        run(StoreUnreachable("s3://bucket/runs cannot be reached"), tmp_path, monkeypatch)
    record = Ledger(tmp_path).record("t0")
    assert record is not None and record.state == "running" and not is_settled(record, WANTED)


# On a worker group


def lost_worker() -> Exception:
    from ray.exceptions import ActorDiedError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    error: Exception = WorkerHealthCheckFailedError("A health check failed.", ActorDiedError())
    return error


class Group:
    """Stands for Ray Train: every start ends in the next of `failures`, then in success."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *failures: dict[int, Exception]) -> None:
        self.failures, self.starts, self.kept = list(failures), 0, [set[str]()]
        monkeypatch.setattr(worker, "_fit_group", self.fit)
        monkeypatch.setattr(
            worker, "_checkpoints", lambda *_: self.kept[min(self.starts, len(self.kept) - 1)]
        )

    def fit(self, *_: Any) -> Any:
        from ray.train import WorkerGroupError

        self.starts += 1
        if self.failures:
            raise WorkerGroupError("a worker failed", self.failures.pop(0))
        raise StopIteration("it would have finished")


def group_of(output: Path, restarts: int = 2) -> Any:
    task = TrialTask(SPEC, (), "cache", str(output))
    return worker.run_group(task, worker.Group(2, max_failures=restarts), str(output), "name")


def user_error(error: Exception) -> Exception:
    """What Ray Train wraps an exception of a worker's loop in."""
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

    wrapped: Exception = UserExceptionWithTraceback(error, traceback_str="")
    return wrapped


@pytest.mark.parametrize(
    "error", [e for e in own() + no_memory() if isinstance(e, Exception)], ids=named
)
def test_a_group_whose_trial_is_at_fault_starts_once(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = user_error(RuntimeError("gloo: Connection closed by peer"))
    group = Group(monkeypatch, {0: peer, 1: user_error(error)})
    if type(error).__module__.startswith("ray."):
        pytest.skip("Ray itself ended that worker: it is lost")
    with pytest.raises(type(error)) as caught:
        group_of(tmp_path)
    assert caught.value is error and group.starts == 1


def test_a_group_that_lost_a_worker_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when another worker stumbles over the loss with an error that looks like its own."""
    stumbles = user_error(ValueError("half a tensor"))
    peer = user_error(RuntimeError("gloo: Connection closed by peer"))
    group = Group(monkeypatch, {1: lost_worker()}, {0: stumbles, 1: lost_worker()}, {0: peer})
    with pytest.raises(StopIteration):
        group_of(tmp_path, restarts=3)
    assert group.starts == 4


def test_a_group_that_gets_no_further_is_given_up_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = Group(monkeypatch, *({1: lost_worker()} for _ in range(9)))
    with pytest.raises(Lost) as caught:
        group_of(tmp_path)
    assert group.starts == 3 and not is_own(caught.value)
    assert str(caught.value).startswith(
        "its worker group was lost 3 times in a row without progress; ActorDiedError: The actor"
    )


def test_a_group_that_gets_further_is_never_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = Group(monkeypatch, *({1: lost_worker()} for _ in range(9)))
    group.kept = [{f"checkpoint_{start}"} for start in range(10)]
    with pytest.raises(StopIteration):
        group_of(tmp_path)
    assert group.starts == 10


def test_training_checkpoints_are_found_in_the_storage(tmp_path: Path) -> None:
    assert worker._checkpoints(str(tmp_path), "name") == set()
    for name in ("checkpoint_1", "checkpoint_2", "other"):
        (tmp_path / "name" / name).mkdir(parents=True)
    assert worker._checkpoints(str(tmp_path), "name") == {"checkpoint_1", "checkpoint_2"}


def test_a_group_drops_progress_that_follows_too_soon_and_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Train holds a worker until its last report was taken up."""
    said: list[float] = []
    monkeypatch.setattr("ray.train.report", lambda metrics: said.append(metrics["step"]))
    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr("ray.train.get_context", lambda: context)
    clock = iter(range(100))
    monkeypatch.setattr(worker.time, "monotonic", lambda: float(next(clock)))
    reporter = worker._GroupReporter(tmp_path)
    for step in range(25):
        reporter.progress({"step": step})
    assert said == [0, 10, 20]
    reporter.dev({"step": 25})
    assert said[-1] == 25


def test_a_report_of_a_checkpoint_counts_as_progress_and_is_not_shown(tmp_path: Path) -> None:
    """Of a worker group it has the step alone: the live view wants to know of how many."""
    shown: list[float] = []
    watcher: Any = SimpleNamespace(progress=lambda name, metrics: shown.append(metrics["step"]))
    supply: Any = None
    events = Events(Ledger(tmp_path), watcher, supply)
    running = SimpleNamespace(
        config={"job": SimpleNamespace(job=SimpleNamespace(trial_id="a"))}, max_failures=0
    )
    events.on_trial_result(1, [], running, {"step": 200.0})
    assert (shown, running.max_failures) == ([], -1)
    events.on_trial_result(2, [], running, {"step": 210.0, "steps": 400.0})
    assert shown == [210.0]
