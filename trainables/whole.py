"""Folders that say of themselves whether they are as they were written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

SEAL = "sha256.json"


def seal(folder: Path) -> None:
    """Leave the SHA-256 of every file below the folder in it; the last thing that is written."""
    text = json.dumps(_digests(folder), sort_keys=True, indent=1)
    (folder / SEAL).write_text(text + "\n", encoding="utf-8")


def is_whole(folder: Path, sealed: bool) -> bool:
    """Whether the folder's files are those that were sealed.

    Where there is no seal, the answer is whether it need not be `sealed`.
    """
    try:
        digests = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return not sealed
    except ValueError:
        return False
    return bool(digests == _digests(folder))


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name != SEAL:
            with file.open("rb") as stream:
                digest = hashlib.sha256()
                while block := stream.read(1 << 20):
                    digest.update(block)
            found[str(file.relative_to(folder))] = digest.hexdigest()
    return found
