"""Identity of planned trials: the hash of `trainables.spec.trial_id`, many times a second."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from ablate.plan.known import ANNOTATORS
from trainables.data.collections import parse_ref
from trainables.data.collections.refs import split_grade
from trainables.data.sources import LABELS_FILE, annotated
from trainables.spec import BEHAVIOUR, Scalar

_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
_FOLDER_FILES = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model")


class Identities:
    """Ids of the trials of one plan, given the identity of every collection's content."""

    def __init__(self, collections: Mapping[str, str]) -> None:
        self._collections = collections
        self._fingerprints: dict[tuple[Scalar, ...], Mapping[str, str]] = {}

    def fingerprints(self, flat: Mapping[str, Scalar]) -> Mapping[str, str]:
        """What else than its spec a trial's numbers follow from, by the key that names it."""
        names = (flat["data.train"], flat["encoder.backbone"], flat["data.machine_labels"])
        if names not in self._fingerprints:
            train, backbone = str(names[0]), str(names[1])
            found = {"data.train": self._collections[parse_ref(train, "train").collection]}
            if Path(backbone).expanduser().is_dir():
                found["encoder.backbone"] = folder_fingerprint(backbone)
            labels = _annotated(found["data.train"], names[2])
            if labels is not None:
                found["data.machine_labels"] = labels
            self._fingerprints[names] = found
        return self._fingerprints[names]

    def trial_id(self, flat: Mapping[str, Scalar]) -> str:
        """As `trial_id` of the spec that `flat` stands for; `flat` is complete."""
        data = _ENCODE(dict(self.fingerprints(flat)))
        text = f'{{"behaviour":{BEHAVIOUR},"data":{data},"spec":{_ENCODE(flat)}}}'
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _annotated(collection: str, machine_labels: Scalar) -> str | None:
    """Identity of labels that `ablate annotate` made; None for a source that the collection brings
    or that is made on demand, which follows from the collection."""
    if not isinstance(machine_labels, str):
        return None
    name, _ = split_grade(machine_labels, "data.machine_labels")
    folder = None if name in ANNOTATORS else annotated(collection, name)
    if folder is None:
        return None
    return hashlib.sha256((folder / LABELS_FILE).read_bytes()).hexdigest()[:20]


@lru_cache(maxsize=32)
def folder_fingerprint(folder: str) -> str:
    """Identity of a local backbone: a hash of the bytes of its weights, settings and tokenizer."""
    root = Path(folder).expanduser()
    content = hashlib.sha256()
    for file in sorted({file for pattern in _FOLDER_FILES for file in root.glob(pattern)}):
        content.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                content.update(block)
    return content.hexdigest()[:20]
