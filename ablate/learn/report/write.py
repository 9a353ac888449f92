"""A report as HTML and Markdown files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from html import escape
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ablate.learn.report.document import Report
from ablate.learn.report.figures import Figure
from ablate.learn.report.sections import build

if TYPE_CHECKING:
    from ablate.learn.claims import Claim
    from ablate.learn.results import Results

HTML_NAME, MARKDOWN_NAME = "report.html", "report.md"


def write_report(results: Results, folder: Path, claims: Sequence[Claim] = ()) -> tuple[Path, Path]:
    """Write `report.html` and `report.md` (with `figures/*.svg`) into `folder`; returns both paths.

    `claims` are judged in it. The HTML holds its styles, figures and script, and refers to nothing
    outside.
    """
    report = build(results, claims)
    folder.mkdir(parents=True, exist_ok=True)
    html, markdown = folder / HTML_NAME, folder / MARKDOWN_NAME
    _put(html, render_html(report))
    _put(markdown, render_markdown(report))
    _write_figures(report, folder / "figures")
    return html, markdown


def render_html(report: Report) -> str:
    """The report as one HTML page."""
    page = _environment(autoescape=True).get_template("report.html.j2")
    return page.render(report=report, version=metadata.version("ablate"))


def render_markdown(report: Report) -> str:
    """The report as Markdown; its figures are `figures/<name>.svg` beside it."""
    page = _environment(autoescape=False).get_template("report.md.j2").render(report=report)
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def _environment(autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("ablate.learn", "templates"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "kind": lambda block: type(block).__name__,
        "marks": _marks,
        "md": _markdown,
        "md_cell": _markdown_cell,
    }
    return environment


def _marks(words: str) -> Markup:
    """`**bold**` and `` `code` `` as HTML, everything else escaped."""
    safe = escape(words)
    safe = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe)
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", safe))


def _markdown(words: str) -> str:
    """Text on one line in which nothing but a code span can hold a `<`."""
    parts = re.split(r"(`[^`]+`)", " ".join(words.split()))
    parts[::2] = [part.replace("<", "&lt;").replace(">", "&gt;") for part in parts[::2]]
    return "".join(parts)


def _markdown_cell(words: str) -> str:
    return _markdown(words).replace("|", "\\|")


def _write_figures(report: Report, folder: Path) -> None:
    figures = [
        block
        for section in report.sections
        for block in section.blocks
        if isinstance(block, Figure)
    ]
    if not figures:
        return
    folder.mkdir(exist_ok=True)
    style = _environment(autoescape=False).get_template("figure.css").render()
    for figure in figures:
        start, _, rest = figure.wide.partition(">")
        drawing = f"{start}><style>{style}</style>{rest}\n"
        _put(folder / f"{figure.name}.svg", drawing)


def _put(path: Path, text: str) -> None:
    """Write a whole file or none: a reader may look while a study is still running."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
