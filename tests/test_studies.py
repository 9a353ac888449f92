"""The pages of docs/studies: each belongs to a preset, says what was found, shows its figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ablate.plan.presets import preset_names

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "studies"
PAGES = sorted(FOLDER.glob("*.md"))


def test_there_are_pages() -> None:
    assert len(PAGES) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_a_page_is_whole(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert page.stem in preset_names()
    assert f"ablate run {page.stem}" in text
    written = re.search(r"<!-- findings -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert written and written[1].strip()
    shown = set(re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text))
    assert shown
    assert {FOLDER / name for name in shown} == set((FOLDER / page.stem).iterdir())
