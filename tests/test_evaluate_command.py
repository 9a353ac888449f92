"""`ablate evaluate` as a user meets it: judges, kept embeddings, means, MLflow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ablate.cli import DONE, SOME_FAILED
from ablate.cli.evaluate import evaluate


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
