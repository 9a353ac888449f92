"""The command for models that no study trained: `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ablate.cli import DONE, SOME_FAILED
from ablate.cli.options import example, known_address

Track = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        callback=known_address,
        help="MLflow server or sqlite:///FILE that gets it too.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command of this module to the application."""
    text = "ablate evaluate runs/trials/ID/checkpoint --on nq/test --out scores"
    app.command(epilog=example(text))(evaluate)


def evaluate(
    model: Annotated[str, typer.Argument(help="A checkpoint's folder or a Hugging Face name.")],
    on: Annotated[
        list[str],
        typer.Option(help="NAME|PATH/SPLIT[>=GRADE]; may be given several times."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, TREC runs and scores.")],
    judge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE[>=GRADE]",
            help="Score the same run by this label source too, alone and in union; repeatable.",
        ),
    ] = None,
    keep_embeddings: Annotated[
        bool,
        typer.Option(
            "--keep-embeddings", help="Keep the vectors: the next evaluation encodes nothing."
        ),
    ] = False,
    track: Track = None,
) -> int:
    """Score any Hugging Face or sentence-transformers model on test collections.

    It uses OMP_NUM_THREADS CPU threads; if that is not set, every core that it may use.
    """
    from ablate.cli import show
    from ablate.run.single import evaluate_one

    with show.counting("encoding", "passages") as bar:
        metrics = evaluate_one(model, on, out, bar, judge or (), keep_embeddings)
    show.metrics(metrics)
    show.out.print(f"Written: {out}/metrics.json and a folder for each reference")
    return DONE if track is None else _track(model, on, judge or (), metrics, out, track)


def _track(
    model: str,
    on: Sequence[str],
    judges: Sequence[str],
    metrics: Mapping[str, float],
    out: Path,
    uri: str,
) -> int:
    from ablate.cli import show
    from ablate.learn.tracking.door import TrackingUnavailable
    from ablate.learn.tracking.evaluation import EXPERIMENT, log_evaluation

    try:
        with show.out.status("Filling MLflow"):
            run = log_evaluation(model, on, judges, metrics, out, uri)
    except TrackingUnavailable as error:
        show.err.print("[yellow]MLflow was not filled:[/yellow]", end=" ")
        show.err.print(f"{error}. The results are in {out}.", markup=False)
        return SOME_FAILED
    show.out.print(f"MLflow:  run {run} of the experiment {EXPERIMENT}")
    return DONE
