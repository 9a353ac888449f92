"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Study = Annotated[str, typer.Argument(help="A preset's name or a .yaml file.", metavar="STUDY")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the study; a list is a grid."),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="KEY=VALUE", help="Keep only these compared values."),
]
Runs = Annotated[
    str, typer.Option("--runs", metavar="DIR", help="Run folder: a path, or a URI such as s3://…")
]


def known_address(parameter: typer.CallbackParam, value: str | None) -> str | None:
    """The address as given. Raises InvalidInput, before any work, when MLflow cannot know it."""
    if value is not None:
        from ablate.learn.tracking.door import check_uri

        check_uri(value, parameter.opts[0])
    return value


Tracking = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        callback=known_address,
        help="MLflow tracking server; SQLite in the run folder if not.",
    ),
]
Address = Annotated[
    str | None, typer.Option(help="A running Ray cluster; without it, one starts here.")
]
Growth = Annotated[
    list[str] | None,
    typer.Option(metavar="COUNTxCPU=N,GPU=N", help="What an autoscaler may add there; repeatable."),
]
Prices = Annotated[
    list[str] | None,
    typer.Option("--price", metavar="TYPE=USD", help="Price of a node's hour; repeatable."),
]
Claims = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Claims to judge, as YAML; NAME.claims.yaml beside the study, or those of the papers.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def example(text: str) -> str:
    """The epilog of a command's help."""
    return f"Example:  [bold]{text}[/bold]"
