"""Which software wrote the numbers: every package's version, and the code's revision."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path


def environment() -> str:
    """Every installed package with its version, and the git revision of a checkout."""
    packages = sorted(
        {f"{one.metadata['Name']}=={one.version}" for one in metadata.distributions()},
        key=str.lower,
    )
    return "\n".join([f"# {_revision()}", *packages]) + "\n"


def _revision() -> str:
    """Git revision of the code, when it is a checkout."""
    here = Path(__file__).resolve().parent
    call = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "no git revision"
    return f"git revision {done.stdout.strip()}"
