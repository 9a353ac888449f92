"""The ledger: whole records or none, and everything a reader asks for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ablate.run.ledger import Ledger, Record, slug
from ablate.run.store import TEMPORARY, Store
from trainables.errors import InvalidInput


def a_record(trial_id: str = "a1") -> Record:
    return Record(
        trial_id, {"seed": 1, "loss.name": "lse_pair"}, {"data.train": "f"}, state="finished",
        seconds={"train": 1.5}, attempts=2, metrics={"tiny/dev/mrr_at_10": 0.5},
        evaluated={"tiny/dev": "f"}, log_tail=("one", "two"),
    )  # fmt: skip


def test_a_record_comes_back_as_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs")
    assert ledger.record("a1") is None
    assert list(ledger.records()) == []
    ledger.write(a_record())
    assert ledger.record("a1") == a_record()
    assert list(ledger.records()) == [a_record()]
    assert ledger.evaluated("a1") == ["tiny/dev"]


def test_a_record_is_json_that_any_tool_reads(tmp_path: Path) -> None:
    Ledger(tmp_path).write(a_record())
    content = json.loads((tmp_path / "trials" / "a1" / "record.json").read_text())
    assert content["spec"] == {"seed": 1, "loss.name": "lse_pair"}


def test_a_value_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    bad = Record("a1", {}, {}, metrics={"x": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        Ledger(tmp_path).write(bad)
    assert Ledger(tmp_path).record("a1") is None


def test_publishing_moves_everything_and_replaces_what_stood_there(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs")
    for attempt in ("first", "second"):
        output = tmp_path / attempt
        (output / "checkpoint").mkdir(parents=True)
        (output / "checkpoint" / attempt).write_text(attempt)
        (output / "evaluations" / slug("tiny/dev")).mkdir(parents=True)
        (output / "history.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n')
        ledger.publish("a1", output)
    checkpoint = ledger.checkpoint("a1", tmp_path / "copy")
    assert checkpoint is not None
    assert [file.name for file in checkpoint.iterdir()] == ["second"]
    assert ledger.history("a1") == [{"step": 1, "train/loss": 2.0}]
    assert ledger.store.exists("trials/a1/evaluations/tiny__dev")
    assert list((tmp_path / "runs" / TEMPORARY).iterdir()) == []


def test_a_study_folder_keeps_choices_openings_and_baselines(tmp_path: Path) -> None:
    folder = Ledger(tmp_path).study("mine")
    assert folder.choices() == {} and folder.openings() == [] and folder.baselines() == {}
    folder.write("choices.json", {"01 joint": 3})
    folder.open_test({"references": ["tiny/test"], "trials": ["a1"]}, "0000")
    folder.write("baselines/bm25/tiny__test/metrics.json", {"tiny/test/map": 0.25})
    assert folder.choices() == {"01 joint": 3}
    assert folder.openings() == [{"references": ["tiny/test"], "trials": ["a1"]}]
    assert folder.baselines() == {"bm25": {"tiny/test": {"tiny/test/map": 0.25}}}


def test_baselines_of_an_older_form_have_their_thresholds(tmp_path: Path) -> None:
    folder = Ledger(tmp_path).study("mine")
    for name in ("nq__test", "nq__test:union:weak"):
        folder.write(f"baselines/bm25/{name}/metrics.json", {})
    folder.write("baselines.json", {"bm25": {"nq/test": "f", "nq/test:union:weak": "f 2 weak>=3"}})
    assert set(folder.baselines()["bm25"]) == {
        "nq/test:grade-2", "nq/test:grade-2:union:weak:grade-3"
    }  # fmt: skip


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    code = (
        "import sys; from ablate.run.store import Store\n"
        "store = Store(sys.argv[1])\n"
        "for i in range(10**9): store.write('file', str(i % 10).encode() * 100_000)\n"
    )
    for _ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
        deadline = time.monotonic() + 60
        while not (tmp_path / "file").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        content = Store(tmp_path).read("file")
        assert content is not None
        assert len(content) == 100_000 and len(set(content)) == 1
    Store(tmp_path).sweep_scratch()
    assert list((tmp_path / TEMPORARY).iterdir()) == []


def test_a_root_of_an_unknown_kind_is_the_users_mistake() -> None:
    with pytest.raises(InvalidInput, match="--runs"):
        Store("nowhere://bucket")
