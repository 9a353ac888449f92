"""The command that makes machine labels: `annotate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ablate.cli import CLUSTER_CANNOT, DONE
from ablate.cli.options import Address, Json, example

if TYPE_CHECKING:
    from ablate.run.annotation import Annotation
    from trainables.data.agreement import Agreement
    from trainables.prepare.annotate import Amount

EXAMPLE = "ablate annotate path/to/collection/train --model path/to/model --source my-llm"

Whose = Annotated[
    str, typer.Argument(metavar="NAME|PATH[/SPLIT]", help="Whose queries are judged.")
]
Model = Annotated[str, typer.Option(help="A model's folder or Hugging Face name.")]
Source = Annotated[str, typer.Option(help="Name of the labels, for data.machine_labels.")]
Kind = Annotated[
    str | None,
    typer.Option(help="bi-encoder, cross-encoder or causal-lm; else what the model's head says."),
]
Depth = Annotated[
    int | None, typer.Option(min=1, help="Passages judged per query; 10 if not given.")
]
Pool = Annotated[
    str | None, typer.Option(help="Who finds them: bm25, if not given, or a bi-encoder.")
]
Prompt = Annotated[
    str | None,
    typer.Option(help="Causal LM: graded, if not given, relevant, or a file of that form."),
]
Threshold = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Cross-encoder: least probability; 0.5 if not given."),
]
Least = Annotated[float | None, typer.Option(help="Bi-encoder: least score; 0.35 if not given.")]
Share = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Bi-encoder: least share of the best; 0.9 if not given."),
]
Workers = Annotated[int, typer.Option(min=1, help="Ray workers, each with the model.")]
Output = Annotated[Path | None, typer.Option(help="Write the labels to this .tsv file too.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count the pairs.")]


def register(app: typer.Typer) -> None:
    """Add the command of this module to the application."""
    app.command(epilog=example(EXAMPLE))(annotate)


def annotate(
    collection: Whose,
    model: Model,
    source: Source,
    kind: Kind = None,
    depth: Depth = None,
    pool: Pool = None,
    prompt: Prompt = None,
    threshold: Threshold = None,
    least: Least = None,
    share: Share = None,
    workers: Workers = 1,
    address: Address = None,
    output: Output = None,
    dry_run: DryRun = False,
    json_: Json = False,
) -> int:
    """Let a local model judge the passages of a collection: its verdicts become a label source."""
    from ablate.cli import show
    from ablate.run import annotation
    from ablate.run.capacity import ClusterCannot

    given = {"depth": depth, "pool": pool, "prompt": prompt, "threshold": threshold}
    given |= {"least": least, "share": share}
    settings = {name: value for name, value in given.items() if value is not None}
    wanted = annotation.request(collection, model, source, kind, settings, output)
    if dry_run:
        _foreseen(annotation.foresee(wanted), json_)
        return DONE
    try:
        with show.counting("annotating", wanted.unit) as bar:
            found = annotation.annotate_collection(wanted, workers, address, bar)
    except ClusterCannot as error:
        show.err.print(f"[red]The cluster cannot annotate:[/red] {error}")
        return CLUSTER_CANNOT
    _done(found, wanted, json_)
    return DONE


def _foreseen(amount: Amount, json_: bool) -> None:
    from ablate.cli.show import out

    if json_:
        typer.echo(json.dumps(vars(amount), indent=1))
        return
    most = "" if amount.exact else "at most "
    out.print(
        f"{amount.queries:,} queries; {most}{amount.pairs:,} pairs, "
        f"{most}{amount.left:,} of them still to judge. Nothing was judged."
    )


def _done(found: Agreement, wanted: Annotation, json_: bool) -> None:
    from ablate.cli.show import out

    use = {"data.train": wanted.name, "data.machine_labels": wanted.source}
    written = None if wanted.output is None else str(wanted.output)
    if json_:
        content: dict[str, Any] = found.to_json() | {"use": use, "output": written}
        typer.echo(json.dumps(content, indent=1))
        return
    out.print(
        f"{found.source} against the human labels: {found.pairs:,} pairs judged by both, "
        f"kappa {_shown(found.kappa)}, precision {_shown(found.precision)}, "
        f"recall {_shown(found.recall)}"
    )
    out.print(
        f"{found.positives_per_query:.1f} positives per query (human: "
        f"{found.reference_positives_per_query:.1f}); {found.only_source:,} pairs that no human "
        f"judged; counted as wrong, precision is {_shown(found.strict_precision)}"
    )
    for key, value in use.items():
        out.print(f"  {key}: {value}", markup=False)
    if written is not None:
        out.print(f"Written: {written}", markup=False)


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
