"""Which software wrote the numbers."""

from __future__ import annotations

from importlib import metadata


def environment(revision: str | None) -> str:
    """Every installed package with its version, below the git revision that the study ran."""
    packages = sorted(
        {f"{one.metadata['Name']}=={one.version}" for one in metadata.distributions()},
        key=str.lower,
    )
    return "\n".join([f"# git revision {revision or 'not known'}", *packages]) + "\n"
