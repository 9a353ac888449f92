"""What is said of a study while it runs stands on the screen as it is."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from ablate.cli.live import LiveView
from ablate.cli.show import out as the_screen
from ablate.run.ledger import Record
from ablate.run.trial import Job

REASONS = [
    "cannot read shard [/mnt/data/a.bin] [errno 2]",
    "[bold]the loss[/bold] is not finite",
    "a backslash \\[x] and a bracket [",
]


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def view(out: io.StringIO) -> Iterator[LiveView]:
    view = LiveView(Console(file=out, width=200), None)
    with view.phase("choosing", [Job("a", "01 [joint_lh]", 0, {}, {}, {}, ())], 1):
        yield view


@pytest.mark.parametrize("reason", REASONS)
def test_a_reason_is_printed_as_it_is(view: LiveView, out: io.StringIO, reason: str) -> None:
    view.started("a")
    view.ended(Record("a", {}, {}, state="failed", reason=reason))
    assert out.getvalue() == f"[1/1] 01 [joint_lh] seed 0: failed: {reason}\n"


@pytest.mark.parametrize("text", ["[x]", "[/x]", "node [red] is refused"])
def test_a_note_is_printed_as_it_is(view: LiveView, out: io.StringIO, text: str) -> None:
    view.note(text)
    with view.working(text):
        pass
    said, worked = out.getvalue().splitlines()
    assert said == text and worked.startswith(f"{text} (")


def test_a_lost_trial_runs_no_more(view: LiveView) -> None:
    view.started("a")
    assert view._table().row_count == 1
    view.lost("a")
    assert view._table().row_count == 0
    view.lost("a")


def test_a_reference_with_judges_is_no_emoji() -> None:
    """rich has one named key, among a thousand others."""
    assert the_screen.render_str("tiny/dev:key:weak").plain == "tiny/dev:key:weak"
