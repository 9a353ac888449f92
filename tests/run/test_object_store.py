"""A run folder on an object store: the same behaviour, and a sentence where it is not to be had."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from pyarrow import fs

from ablate.cli import CLUSTER_CANNOT, WRONG_INPUT, main
from ablate.run import trial, upkeep
from ablate.run.events import Events
from ablate.run.lease import CLAIMS, DRIVERS, Leases
from ablate.run.ledger import Ledger, Record
from ablate.run.store import MARK, TEMPORARY, Store, StoreUnreachable
from ablate.run.trial import Job, Resources
from ablate.run.upkeep import leftovers
from tests.run.s3_server import KEYS, Line, at, free_port
from trainables.errors import InvalidInput
from trainables.looks import Looks
from trainables.scratch import host


@pytest.fixture
def endpoint(s3_port: int) -> str:
    """The query part of a URI of an S3 server on this machine."""
    return at(s3_port)


@pytest.fixture
def store(endpoint: str, s3_keys: None) -> Store:
    made = Store(f"s3://bucket/runs?{endpoint}")
    made.files.create_dir("bucket")
    return made


@pytest.mark.parametrize("where", ["disk", "object store"])
def test_looks_are_kept_and_a_trial_is_told_to_stop(
    where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    local = where == "disk"
    runs: Store = Store(tmp_path) if local else request.getfixturevalue("store")
    place = runs.uri_of("trials/a/looks/x")
    looks = Looks(place)
    assert looks.steps() == [] and looks.read(4) is None and looks.told(4) is None
    looks.write(4, np.array([0.5, 1.0]))
    looks.write(12, np.array([0.0, 0.25]))
    looks.stop(12, "worse")
    there = Looks(place)
    assert there.steps() == [4, 12]
    np.testing.assert_array_equal(there.read(12), [0.0, 0.25])
    assert there.told(4) is None and there.told(12) == "worse" and not there.spared
    there.spare()
    assert looks.told(12) is None and looks.spared and looks.steps() == [4, 12]
    names = list(runs.children("trials/a/looks/x"))
    assert names == ["12.npy", "4.npy", "spared"]


def test_files_come_back_and_folders_are_replaced_whole(store: Store, tmp_path: Path) -> None:
    store.require()
    assert store.read("a/b") is None and not store.exists("a/b") and list(store.children("a")) == []
    store.write("a/b", b"one")
    store.touch("a/mark")
    assert store.read("a/b") == b"one" and list(store.children("a")) == ["b", "mark"]
    assert store.size("a") == 3 and (store.modified("a/b") or 0) > 1e9
    for attempt in ("first", "second"):
        folder = tmp_path / attempt
        folder.mkdir()
        (folder / attempt).write_text(attempt)
        store.publish(folder, "a/folder")
    copy = store.fetch("a/folder", tmp_path / "copy")
    assert copy == tmp_path / "copy" and store.fetch("a/never", tmp_path / "none") is None
    assert [file.name for file in copy.iterdir()] == ["second"]
    store.delete("a/folder")
    store.delete("a/never")
    assert not store.exists("a/folder/second")


def test_a_ledger_and_its_leases_work_there(store: Store) -> None:
    ledger = Ledger(store.uri)
    ledger.write(Record("t1", {"seed": 1}, {}, state="finished"))
    assert [record.trial_id for record in ledger.records()] == ["t1"]
    with Leases(store) as one, Leases(Store(store.uri)) as other:
        assert one.claim("t2")
        assert not other.claim("t2")
        assert other.elsewhere() == {"t2"}
        one.release("t2")
        assert other.claim("t2")
    assert list(store.children(CLAIMS)) == list(store.children(DRIVERS)) == []


def test_what_a_killed_driver_left_there_goes(store: Store) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = host()
    sweeps = [f"{here}.{ended.pid}.sweep", f"{here}.{os.getpid()}.sweep", "another-host.1.sweep"]
    for name in sweeps:
        store.write(f"{TEMPORARY}/{name}/{MARK}", b"")
    assert f"{TEMPORARY}/{sweeps[0]}" in [left.path for left in leftovers(Ledger(store))]
    store.sweep_scratch()
    assert set(store.children(TEMPORARY)) == set(sweeps[1:])
    assert list(leftovers(Ledger(store))) == []


def test_gc_finds_what_drivers_of_other_hosts_left_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.delete(TEMPORARY)
    for name in ("gone.1.sweep", "busy.1.sweep"):
        store.write(f"{TEMPORARY}/{name}/{MARK}", b"")
    store.write(f"{DRIVERS}/busy.1.abcd", b"")
    assert list(leftovers(Ledger(store))) == []
    monkeypatch.setattr(upkeep, "STALE_SECONDS", 0.0)
    assert [left.path for left in leftovers(Ledger(store))] == [f"{TEMPORARY}/gone.1.sweep"]
    store.delete(f"{DRIVERS}/busy.1.abcd")


def test_a_bucket_that_is_missing_is_named(store: Store, endpoint: str) -> None:
    missing = Store(
        f"s3://no-such-bucket/runs?{endpoint}".replace("&allow_bucket_creation=true", "")
    )
    with pytest.raises(InvalidInput, match="make no-such-bucket first"):
        missing.require()


def test_a_store_that_does_not_answer_ends_in_a_sentence_and_code_3(tmp_path: Path) -> None:
    uri = f"s3://bucket/runs?endpoint_override=127.0.0.1%3A{free_port()}&scheme=http"
    done = subprocess.run(
        [sys.executable, "-m", "ablate.cli", "run", "quickstart", "--runs", uri],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **KEYS},
        check=False,
    )
    assert done.returncode == CLUSTER_CANNOT, done.stderr
    assert "Traceback" not in done.stderr and "cannot be reached" in done.stderr
    assert "What is finished is kept; once it answers, the same command goes on." in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_is_cut_and_mended_is_waited_for(s3_port: int, s3_keys: None) -> None:
    with Line(s3_port) as line:
        store = Store(f"s3://bucket/patient?{at(line.port)}", patience=60.0)
        store.files.create_dir("bucket")
        store.write("a", b"one")
        line.cut()
        with pytest.raises(StoreUnreachable):
            Store(store.uri).read("a")
        mending = threading.Timer(1.0, line.mend)
        mending.start()
        assert store.read("a") == b"one"
        mending.join()


# A store that fails, without a server


URI = "s3://bucket/runs"
REFUSALS = [
    OSError("When getting information for key 'runs': AWS Error NETWORK_CONNECTION: curlCode: 7"),
    PermissionError("When listing objects: AWS Error ACCESS_DENIED during ListObjectsV2"),
    TimeoutError("no answer after 3 s"),
]


class Failing:
    """A file system that every call fails in, or one that has not even the bucket."""

    def __init__(self, error: OSError | None) -> None:
        self.error = error

    def get_file_info(self, what: Any) -> Any:
        if self.error is not None:
            raise self.error
        return [] if isinstance(what, fs.FileSelector) else fs.FileInfo(what, fs.FileType.NotFound)

    def __getattr__(self, name: str) -> Any:
        def fails(*_: Any, **__: Any) -> Any:
            raise self.error or FileNotFoundError("AWS Error NO_SUCH_BUCKET")

        return fails


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[OSError | None], Store]:
    """Makes every run folder at an s3:// URI one of a failing store."""

    def make(error: OSError | None) -> Store:
        class Opened:
            @staticmethod
            def from_uri(uri: str) -> tuple[Any, str]:
                return Failing(error), uri.partition("://")[2]

        monkeypatch.setattr(fs, "FileSystem", Opened)
        return Store(URI)

    return make


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_a_store_that_refuses_is_named_whatever_is_asked(
    error: OSError, failing: Callable[[OSError | None], Store], tmp_path: Path
) -> None:
    store = failing(error)
    asked: list[Callable[[], Any]] = [
        store.require,
        lambda: store.read("a"),
        lambda: store.write("a", b""),
        lambda: store.exists("a"),
        lambda: list(store.children("a")),
        lambda: store.delete("a"),
        lambda: store.size("a"),
    ]
    for ask in asked:
        with pytest.raises(StoreUnreachable, match=f"{URI} cannot be reached: ") as caught:
            ask()
        assert str(error) in str(caught.value)


def test_a_trial_whose_store_is_lost_is_not_one_that_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is the sweep that starts it again, or ends."""
    monkeypatch.setattr(trial, "_run", lost_store)
    resources = Resources(str(tmp_path / "runs"), str(tmp_path / "cache"))
    job = Job("t1", "01 joint_lh", 0, {}, {}, {}, ())
    with pytest.raises(StoreUnreachable):
        trial.execute(job, resources, lambda metrics: None)
    (record,) = Ledger(resources.runs).records()
    assert record.state == "running"


def lost_store(*_: Any) -> Any:
    raise StoreUnreachable(f"{URI} cannot be reached: timeout")


class Ended:
    """A trial as Tune shows it at its end."""

    config: ClassVar[dict[str, Any]] = {"job": SimpleNamespace(job=SimpleNamespace(trial_id="t1"))}
    last_result: ClassVar[dict[str, Any]] = {}


def test_a_sweep_that_cannot_read_how_a_trial_ended_ends(
    failing: Callable[[OSError | None], Store],
) -> None:
    """An error at that moment would make Tune run the trial again, though it has finished."""
    events = Events(Ledger(failing(REFUSALS[0])), None, None)  # type: ignore[arg-type]
    events.on_step_begin(1, [])
    events.on_trial_complete(1, [], Ended())
    with pytest.raises(StoreUnreachable):
        events.on_step_begin(2, [])
    assert events.records == []


def test_the_failure_of_a_store_is_found_behind_other_errors(
    failing: Callable[[OSError | None], Store], tmp_path: Path
) -> None:
    local, store = Store(tmp_path), failing(REFUSALS[0])

    def wrapped(cause: Exception) -> Exception:
        """As Tune does: only the context tells."""
        error = RuntimeError("a text of Tune's")
        error.__context__ = cause
        return error

    own = StoreUnreachable("gone")
    assert store.failure(wrapped(own)) is own
    assert URI in str(store.failure(wrapped(REFUSALS[0])))
    assert store.failure(wrapped(ValueError("a defect"))) is None
    assert store.failure(wrapped(OSError(errno.ENOSPC, "No space left"))) is None
    assert local.failure(wrapped(REFUSALS[0])) is None


def test_a_bucket_that_is_missing_is_the_users_mistake(
    failing: Callable[[OSError | None], Store],
) -> None:
    store = failing(None)
    for ask in (store.require, lambda: store.write("a", b"")):
        with pytest.raises(InvalidInput, match="make bucket first") as caught:
            ask()
        (problem,) = caught.value.problems
        assert (problem.key, problem.value) == ("--runs", URI)
    assert store.read("a") is None and list(store.children("a")) == []


@pytest.mark.parametrize("words", [["plan", "quickstart"], ["status", "quickstart"],
                                   ["report", "quickstart"]], ids=" ".join)  # fmt: skip
def test_commands_end_in_a_code_when_the_store_fails(
    words: list[str],
    failing: Callable[[OSError | None], Store],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["ablate", *words, "--runs", URI])
    before = signal.getsignal(signal.SIGINT)
    try:
        for error, code in ((None, WRONG_INPUT), (REFUSALS[0], CLUSTER_CANNOT)):
            failing(error)
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == code
    finally:
        signal.signal(signal.SIGINT, before)


SECRETS = ["KEYID:SECRET", "KEYID:HID/DEN", "KEYID:1HID/DEN+Z9"]


def is_hidden(secret: str, text: str) -> bool:
    """Whether the text has no part of the secret."""
    return not any(part in text for part in re.split(r"[:/+]", secret))


@pytest.mark.parametrize("secret", SECRETS)
def test_a_store_is_shown_without_what_opens_it(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"s3://{secret}@bucket/runs"
    refusal = OSError(f"When getting information for {uri}: AWS Error NETWORK_CONNECTION")
    opened = SimpleNamespace(from_uri=lambda uri: (Failing(refusal), "bucket/runs"))
    monkeypatch.setattr(fs, "FileSystem", opened)
    store = Store(uri)
    with pytest.raises(StoreUnreachable, match="cannot be reached") as away:
        store.read("a")
    missing = Failing(None)
    monkeypatch.setattr(store, "_files", missing)
    with pytest.raises(InvalidInput, match="make bucket first") as absent:
        store.require()
    for text in (store.shown, str(away.value), str(absent.value)):
        assert "s3://***@bucket/runs" in text
        assert is_hidden(secret, text)
    assert store.uri == uri


@pytest.mark.parametrize("secret", SECRETS)
def test_a_uri_that_cannot_be_opened_is_shown_without_what_opens_it(secret: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be opened as a run folder") as caught:
        Store(f"nowhere://{secret}@bucket/runs")
    text = str(caught.value)
    assert "nowhere://***@bucket/runs" in text
    assert is_hidden(secret, text)


@pytest.mark.parametrize("uri", ["nowhere://bucket/runs", "s3://"])
def test_a_uri_that_is_none_is_the_users_mistake(uri: str) -> None:
    with pytest.raises(InvalidInput, match=r"cannot be opened as a run folder|names no bucket"):
        Store(uri)


def test_a_file_that_is_replaced_by_a_longer_one_while_it_is_read_is_read_again(
    failing: Callable[[OSError | None], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyarrow asks for the length, then for so many bytes of what stands there by then."""
    whole, answers = b'{"state": "finished"}', [b'{"state": "fini', b'{"state": "finished"}']
    store = failing(None)
    files = SimpleNamespace(
        open_input_stream=lambda path: io.BytesIO(answers.pop(0)),
        get_file_info=lambda path: SimpleNamespace(size=len(whole)),
    )
    monkeypatch.setattr(store, "_files", files)
    assert store.read("trials/t/record.json") == whole and answers == []
