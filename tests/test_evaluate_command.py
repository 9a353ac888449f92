"""`ablate evaluate` as a user meets it: judges, kept embeddings, means, MLflow."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from ablate.cli import DONE, SOME_FAILED
from ablate.cli.evaluate import evaluate
from ablate.run.processes import THREADS, threads
from trainables.errors import InvalidInput


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_judges_embeddings_and_means(
    cache: Path, tiny_backbone: str, tiny_collection: str, tmp_path: Path
) -> None:
    for name in ("scifact", "nfcorpus"):
        shutil.copytree(tiny_collection, tmp_path / name)
    on = [f"{tmp_path / name}/test" for name in ("scifact", "nfcorpus")]
    assert evaluate(tiny_backbone, on, tmp_path / "one", ["weak"]) == DONE
    assert not (cache / "embeddings").exists()
    assert evaluate(tiny_backbone, on, tmp_path / "two", ["weak"], keep_embeddings=True) == DONE
    assert list((cache / "embeddings").glob("*/vectors.npy"))
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 1 + 2 * (3 + 2 + 2)
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
    mean = metrics["beir/mean:nfcorpus:scifact/ndcg_at_10"]
    assert mean == metrics["scifact/test/ndcg_at_10"] == metrics["nfcorpus/test/ndcg_at_10"]
    for kind in ("machine", "union"):
        assert f"scifact/test:{kind}:weak/condensed_ndcg_at_10" in metrics


def test_an_evaluation_goes_to_mlflow(
    cache: Path, tiny_backbone: str, tiny_collection: str, tmp_path: Path
) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri, out = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "out"
    assert evaluate(tiny_backbone, [f"{tiny_collection}/test"], out, ["weak"], track=uri) == DONE
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("evaluations")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics == json.loads((out / "metrics.json").read_text())
    assert run.data.params["model"] == tiny_backbone and run.data.params["judge"] == "weak"
    kept = {str(path.relative_to(out)) for path in out.rglob("*.*")}
    place = Path(run.info.artifact_uri.removeprefix("file://"))
    sent = {str(path.relative_to(place)) for path in place.rglob("*.*")}
    assert sent == {name if "/" not in name else f"evaluations/{name}" for name in kept}


def test_an_mlflow_that_does_not_answer_costs_no_result(
    cache: Path, tiny_backbone: str, tiny_collection: str, tmp_path: Path
) -> None:
    pytest.importorskip("mlflow")
    uri, out = "http://127.0.0.1:9", tmp_path / "out"
    assert evaluate(tiny_backbone, [f"{tiny_collection}/test"], out, track=uri) == SOME_FAILED
    assert (out / "metrics.json").exists()


def test_every_mistake_is_told_before_anything_is_done(
    cache: Path, tiny_collection: str, tmp_path: Path
) -> None:
    shutil.copytree(tiny_collection, tmp_path / "tiny")
    (tmp_path / "file").write_text("no folder")
    good, twin = f"{tiny_collection}/test", f"{tmp_path}/tiny/test"
    on = [good, f"{tiny_collection}/tset", "nope/test", twin]
    with pytest.raises(InvalidInput) as caught:
        evaluate("no/such-model", on, tmp_path / "file" / "below", ["week", "weak"])
    rules = [f"{problem.key}: {problem.rule}" for problem in caught.value.problems]
    assert len(rules) == 5
    assert rules[0] == "--judge: is unknown; known: minilm-l6, weak"
    assert "is unknown; known: dev, test, train" in rules[1]
    assert "neither an existing path" in rules[2]
    assert f"is called tiny/test in metrics, as {good}:week:weak is" in rules[3]
    assert rules[4] == "--out: cannot be written to: Not a directory"
    # Whose labels a collection has is asked by its fingerprint, which may be remembered.
    assert {path.name for path in cache.glob("*")} <= {"fingerprints"}


def test_a_model_that_cannot_be_read_leaves_nothing(
    cache: Path, tiny_backbone: str, tiny_collection: str, tmp_path: Path
) -> None:
    shutil.copytree(tiny_backbone, tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    out = tmp_path / "new" / "out"
    for model in (str(tmp_path / "broken"), str(tmp_path / "nowhere")):
        with pytest.raises(InvalidInput):
            evaluate(model, [f"{tiny_collection}/test"], out)
    assert not out.parent.exists()


def test_threads_follow_the_variable_then_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS, "3")
    assert threads() == 3
    for wrong in ("0", "-2", "many", "1.5"):
        monkeypatch.setenv(THREADS, wrong)
        with pytest.raises(InvalidInput, match="whole number of at least 1"):
            threads()
    monkeypatch.delenv(THREADS)
    cores = sorted(os.sched_getaffinity(0))
    assert threads() == len(cores)
    try:
        os.sched_setaffinity(0, cores[:1])
        assert threads() == 1
    finally:
        os.sched_setaffinity(0, cores)


def test_an_evaluation_runs_on_the_threads_that_are_allowed(
    cache: Path,
    tiny_backbone: str,
    tiny_collection: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = torch.get_num_threads()
    try:
        for wanted in ("1", "2"):
            monkeypatch.setenv(THREADS, wanted)
            evaluate(tiny_backbone, [f"{tiny_collection}/dev"], tmp_path / wanted)
            assert torch.get_num_threads() == int(wanted)
    finally:
        torch.set_num_threads(before)
