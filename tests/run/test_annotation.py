"""`ablate annotate`: the same labels from two workers, from a killed call, and from one call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.plan.planner import make_plan
from ablate.plan.study import read_study
from ablate.run import annotation
from tests.prepare.conftest import causal_model, cross_encoder
from trainables.data.cache import Cache
from trainables.data.collections import open_collection
from trainables.data.sources import LABELS_FILE, annotated
from trainables.errors import InvalidInput
from trainables.prepare import judging
from trainables.prepare.annotate import annotate
from trainables.prepare.annotators import Annotator, BiEncoder, CausalLM, CrossEncoder

__all__ = ["causal_model", "cross_encoder"]

ROOT = Path(__file__).resolve().parents[2]

KILLED = """
import sys, time
from pathlib import Path
from trainables.prepare import judging
from ablate.cli import main

log, stop = Path(sys.argv[1]), int(sys.argv[2])
judging.BLOCK = 16
real = judging.CausalJudge.judge

def judge(self, queries, passages):
    done = log.read_text().splitlines() if log.exists() else []
    if len(done) >= stop:
        log.with_suffix(".waiting").touch()
        time.sleep(60)
    with log.open("a") as file:
        file.writelines(f"{query}|{passage}\\n" for query, passage in zip(queries, passages))
    return real(self, queries, passages)

judging.CausalJudge.judge = judge
sys.argv = ["ablate", *sys.argv[3:]]
main()
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    return Cache(tmp_path / "cache")


def ablate(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ablate.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_two_workers_give_the_bytes_of_one(
    tiny_collection: str,
    tiny_backbone: str,
    causal_model: str,
    cross_encoder: Callable[[int], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judging, "BLOCK", 24)
    monkeypatch.setattr(judging, "TEXTS", 16)
    annotators: dict[str, Annotator] = {
        "llm": CausalLM(causal_model, depth=4),
        "cross": CrossEncoder(cross_encoder(1), depth=4),
        "bi": BiEncoder(tiny_backbone, depth=4),
    }
    one, two = Cache(tmp_path / "one"), Cache(tmp_path / "two")
    for source, annotator in annotators.items():
        annotate(tiny_collection, annotator, source, one)
    with annotation._judging(2, None) as crew:
        for source, annotator in annotators.items():
            annotate(tiny_collection, annotator, source, two, judging=crew)
    mark = open_collection(tiny_collection, one).fingerprint
    for source in annotators:
        folders = [annotated(mark, source, cache) for cache in (one, two)]
        contents = [(folder / LABELS_FILE).read_bytes() for folder in folders if folder]
        assert len(contents) == 2
        assert contents[0] == contents[1] and len(contents[0]) > 1000, source


def test_after_kill_9_nothing_is_judged_again_and_the_source_is_used(
    tiny_collection: str, causal_model: str, tmp_path: Path
) -> None:
    log, output = tmp_path / "log", tmp_path / "labels.tsv"
    words = [
        "annotate",
        tiny_collection,
        "--model",
        causal_model,
        "--source",
        "llm",
        "--depth",
        "4",
    ]

    def start(stop: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", KILLED, str(log), str(stop), *words]
        command += ["--output", str(output)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )

    dying = start(40)
    deadline = time.monotonic() + 120
    while not log.with_suffix(".waiting").exists():
        assert time.monotonic() < deadline and dying.poll() is None, dying.communicate()
        time.sleep(0.05)
    os.kill(dying.pid, signal.SIGKILL)
    dying.communicate()
    assert not output.exists()
    first = log.read_text().splitlines()
    again = start(10**6)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert "data.machine_labels: llm" in out and "kappa" in out
    judged = log.read_text().splitlines()
    assert 40 <= len(first) < len(judged) == len(set(judged))
    rows = output.read_text().splitlines()
    assert rows[0] == "query-id\tcorpus-id\tscore"
    assert len(rows) - 1 == len(judged)
    _used_in_a_plan(tiny_collection)
    _refused_where_it_is_wrong(tiny_collection, causal_model, output)


def _used_in_a_plan(collection: str) -> None:
    text = (
        "question: Is the source known?\n"
        f"fixed: {{data.train: {collection}, data.machine_labels: llm, loss.temperature: 0.1,\n"
        "  encoder.backbone: packaged/all-MiniLM-L6-v2, optim.lr: 1.0e-5, optim.batch_size: 4,\n"
        "  optim.steps: 2}\ncompare: {loss.name: [joint_lh, lse_pair]}\n"
        "repeat: {seed: [0, 1]}\n"
        f"evaluate: [{collection}/test]\n"
    )
    study = read_study(text, "study", "study.yaml", None)
    trial = next(make_plan(study).repeat())
    assert set(trial.fingerprints) == {"data.train", "data.machine_labels"}
    with pytest.raises(InvalidInput, match="llm"):
        read_study(text.replace("labels: llm", "labels: lln"), "study", "study.yaml", None)


def _refused_where_it_is_wrong(collection: str, model: str, output: Path) -> None:
    """All mistakes in one list, and code 2."""
    wrong = ["annotate", f"{collection}/trian", "--model", model, "--source", "a b"]
    wrong += ["--threshold", "0.5", "--output", str(output)]
    done = ablate(*wrong)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    for said in ("did you mean 'train'", "no option of a causal-lm", "is there already"):
        assert said in done.stderr, done.stderr


def test_a_request_says_what_it_comes_to(
    tiny_collection: str, causal_model: str, tmp_path: Path
) -> None:
    place = f"{tiny_collection}/train"
    wanted = annotation.request(place, causal_model, "llm", None, {"depth": 3}, None)
    assert isinstance(wanted.annotator, CausalLM) and wanted.split == "train"
    assert wanted.unit == "pairs"
    amount = annotation.foresee(wanted)
    assert amount.exact and 18 * 3 <= amount.pairs <= 18 * 5
    for given, said in (
        ({"prompt": "grade"}, "graded"),
        ({"share": 0.5}, "no option"),
    ):
        with pytest.raises(InvalidInput, match=said):
            annotation.request(place, causal_model, "llm", None, given, None)
    with pytest.raises(InvalidInput) as caught:
        annotation.request(place, "no/model", "weak", None, {}, tmp_path / "none" / "x.tsv")
    assert len(caught.value.problems) == 3
    with pytest.raises(InvalidInput, match="bi-encoder"):
        annotation.request(place, causal_model, "llm", "encoder", {}, None)


def test_labels_made_otherwise_keep_their_name(tiny_collection: str, tiny_backbone: str) -> None:
    wanted = annotation.request(tiny_collection, tiny_backbone, "mine", None, {"depth": 3}, None)
    annotation.annotate_collection(wanted, 1, None, lambda done, total: None)
    same = annotation.request(tiny_collection, tiny_backbone, "mine", None, {"depth": 3}, None)
    assert same.annotator == wanted.annotator
    with pytest.raises(InvalidInput, match=r"made otherwise \(depth 3\)"):
        annotation.request(tiny_collection, tiny_backbone, "mine", None, {"depth": 4}, None)


def test_json_names_the_source(tiny_collection: str, tiny_backbone: str) -> None:
    done = ablate("annotate", tiny_collection, "--model", tiny_backbone, "--source", "bi", "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["use"] == {"data.train": tiny_collection, "data.machine_labels": "bi"}
    assert content["pairs"] == 36
