"""A `.zip` of a folder in BEIR's layout, as BEIR's own downloads are."""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from trainables.data.collections import folder
from trainables.data.collections.builder import Builder
from trainables.data.collections.forms import Form

_TEXTS = ("corpus.jsonl", "corpus.jsonl.gz", "queries.jsonl", "queries.jsonl.gz")


def matches(path: Path) -> bool:
    """Whether `path` is a zip file."""
    return path.is_file() and zipfile.is_zipfile(path)


def files(path: Path) -> list[Path]:
    """The zip file itself."""
    return [path]


def splits(path: Path) -> list[str]:
    """The names of the splits that have judgements."""
    with zipfile.ZipFile(path) as archive:
        names = [PurePosixPath(name) for name in archive.namelist()]
    return sorted(
        name.name.removesuffix(".gz").removesuffix(".tsv")
        for name in names
        if name.parent.name == "qrels" and name.name.endswith((".tsv", ".tsv.gz"))
    )


def read(path: Path, builder: Builder) -> None:
    """Unpacks the collection's files for the time of reading, and reads them into `builder`."""
    with tempfile.TemporaryDirectory() as temporary:
        try:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if _belongs(PurePosixPath(name)):
                        archive.extract(name, temporary)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            builder.faults.error("zip", path.name, None, f"is damaged: {error}")
            return
        roots = sorted({file.parent for name in _TEXTS[:2] for file in Path(temporary).rglob(name)})
        if len(roots) != 1:
            detail = f"must hold one corpus.jsonl, holds {len(roots)}"
            builder.faults.error("zip", path.name, None, detail)
            return
        folder.read(roots[0], builder)


def _belongs(name: PurePosixPath) -> bool:
    if "__MACOSX" in name.parts:
        return False
    return name.name in _TEXTS or name.parent.name in {"qrels", "labels"}


FORM = Form("zip", matches, files, splits, read, folder.SHOWN)
