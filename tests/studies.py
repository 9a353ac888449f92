"""The pages of docs/studies, made from reports, and what the README quotes of them.

    python tests/studies.py RUNS nfcorpus-noise …

takes the studies' reports from the run folder RUNS. What a person wrote on a page, between
`<!-- findings -->` and `<!-- end -->`, stays; the first paragraph of it stands in the README, under
"What it finds", with a link.
"""

from __future__ import annotations

import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "studies"

SECTIONS = (
    "Design",
    "What was run",
    "Ranking",
    "Which differences are real",
    "Claims",
    "Over the grid",
    "Where the winner changes",
    "What matters",
    "What human labels buy",
    "MRR against recall",
    "Over the test sets",
    "Chosen on dev, judged on test",
    "Where the gradient goes",
    "Threats to validity",
    "Reproduce",
)
"""Sections of a report that a page shows, where the report has them."""

WRITTEN = re.compile(r"<!-- findings -->\n(.*?)<!-- end -->", re.DOTALL)


def page(study: str, report: str, before: str) -> str:
    """The page of a study, from its report in Markdown and from the page that stood there."""
    found = WRITTEN.search(before)
    written = found[1] if found else "\n"
    head, *sections = re.split(r"^(?=## )", report, flags=re.MULTILINE)
    title, _, answer = head.partition("\n")
    answer = re.sub(r"^Study `.*`\n", "", answer, flags=re.MULTILINE).strip()
    kept = [part for part in sections if part.splitlines()[0].removeprefix("## ") in SECTIONS]
    if not kept:
        raise ValueError(f"the report of {study} has none of the sections that a page shows")
    body = "".join(kept).replace("(figures/", f"({study}/")
    command = f"export ABLATE_COLLECTIONS=DIR\nablate run {study}"
    machine = f"Python {platform.python_version()}, 2 cores of a CPU, no GPU"
    return (
        f"{title}\n\n```\n{command}\n```\n\n{machine}; versions and times are below.\n\n"
        f"<!-- findings -->\n{written}<!-- end -->\n\n## What the tool says\n\n{answer}\n\n{body}"
    )


def findings() -> Iterator[str]:
    """Lines of the README: the first paragraph of what was found, for every page."""
    pages = sorted(PAGES.glob("*.md"))
    if not pages:
        raise ValueError(f"there is no page in {PAGES}")
    for file in pages:
        written = WRITTEN.search(file.read_text(encoding="utf-8"))
        if written is None:
            raise ValueError(f"{file} says nothing between <!-- findings --> and <!-- end -->")
        first = " ".join(written[1].strip().split("\n\n")[0].split())
        yield f"- **[{file.stem}](docs/studies/{file.name})** {first}"


def main(runs: Path, studies: list[str]) -> None:
    for study in studies:
        home, file = runs / "studies" / study, PAGES / f"{study}.md"
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        report = (home / "report.md").read_text(encoding="utf-8")
        text = page(study, report, before)
        file.write_text(text, encoding="utf-8")
        shutil.rmtree(PAGES / study, ignore_errors=True)
        for name in sorted(set(re.findall(rf"\({study}/([^)]+)\)", text))):
            (PAGES / study).mkdir(exist_ok=True)
            shutil.copyfile(home / "figures" / name, PAGES / study / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
