"""Which revision of the code ran."""

from __future__ import annotations

import subprocess
from pathlib import Path


def revision() -> str | None:
    """Git revision of this code, with `-dirty` where it was changed; None when it is installed."""
    here = Path(__file__).resolve()
    git = ["git", "-C", str(here.parent)]
    try:
        # An installed copy may lie below a checkout of something else.
        _said([*git, "ls-files", "--error-unmatch", here.name])
        return _said([*git, "describe", "--always", "--dirty", "--abbrev=40"])
    except (OSError, subprocess.SubprocessError):
        return None


def _said(call: list[str]) -> str:
    done = subprocess.run(call, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
