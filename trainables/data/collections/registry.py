"""Where a collection comes from: the built-in names, and the forms that a path may have."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from trainables.data.collections import beir, contexts, folder, hub, msmarco, nq, pydocs, zipped
from trainables.data.collections.forms import Entry, Form
from trainables.errors import InvalidInput, Problem, nearest

FORMS: tuple[Form, ...] = (
    contexts.TEVATRON,
    contexts.DPR,
    msmarco.FORM,
    folder.FORM,
    zipped.FORM,
)
"""Forms of local collections, in the order in which a path is tried."""


COLLECTIONS: dict[str, Entry] = {
    entry.name: entry for entry in (*pydocs.entries(), *nq.entries(), *beir.entries())
}
"""The built-in collections by name."""

SEARCHED = "ABLATE_COLLECTIONS"
"""Environment variable: folders, between the system's path separators, in which a collection is
looked for that no path leads to. A study that names `nfcorpus` then runs wherever its folder is."""

_HUB_SPLITS = ("train", "dev", "test")
_MANY = "beir/cqadupstack"
_MOST_NAMED = 12
"""Collections of the searched folders that a message names."""


def entry_of(name: str) -> Entry | None:
    """The entry of a built-in name or of `hf:OWNER/NAME[@REVISION]`; None for anything else."""
    if name in COLLECTIONS:
        return COLLECTIONS[name]
    repository = hub.hub_name(name)
    if repository is None:
        return None
    summary, licence = "a dataset of the Hugging Face Hub in BEIR's form", "as the Hub states"
    return hub.hub_entry(name, summary, repository, repository, licence, _HUB_SPLITS, {})


def form_of(path: Path) -> Form | None:
    """The form of the collection at `path`, or None when there is none."""
    try:
        return next((form for form in FORMS if form.matches(path)), None)
    except OSError:
        return None


def parts_of(name: str) -> tuple[str, ...]:
    """The built-in collections that the set `name` consists of; none when it is no set."""
    prefix = f"{name}/"
    return tuple(entry for entry in COLLECTIONS if name == _MANY and entry.startswith(prefix))


def is_collection(name: str) -> bool:
    """Whether `name` is a built-in collection or a path that holds one."""
    return entry_of(name) is not None or form_of(_path(name)) is not None


def splits_of(name: str) -> tuple[str, ...]:
    """The splits of a collection, found without reading its texts. Raises InvalidInput."""
    entry = entry_of(name)
    if entry is not None:
        return entry.splits
    path, form = located(name)
    return tuple(form.splits(path))


def located(name: str) -> tuple[Path, Form]:
    """The absolute path and the form of a local collection. Raises InvalidInput when none."""
    path = _path(name)
    form = form_of(path)
    if form is None:
        raise InvalidInput([unknown_collection(name)])
    return path, form


def anywhere(name: str) -> str:
    """`name` as it means the same in every working directory: a path is made absolute."""
    path = _path(name)
    return str(path) if entry_of(name) is None and _exists_at(path) else name


def short_name(name: str) -> str:
    """The name in metrics: of a built-in collection its own, of others the last part of theirs."""
    if name in COLLECTIONS:
        return name
    repository = hub.hub_name(name)
    if repository is not None:
        return repository.name.rpartition("/")[2]
    path = _path(name).resolve()
    stem = path.stem if path.suffix == ".zip" else path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem)


def unknown_collection(name: str, key: str = "collection", place: str | None = None) -> Problem:
    """The problem of a name that is no collection, with the nearest that there is."""
    if _exists_at(_path(name)):
        rule = (
            "holds no collection: a folder needs corpus.jsonl, queries.jsonl and "
            "qrels/<split>.tsv, or the files of NQ or MS MARCO"
        )
        return Problem(key, rule, name, None, place)
    if name.startswith(_MANY):
        parts = ", ".join(entry for entry in COLLECTIONS if entry.startswith(_MANY))
        return Problem(key, f"is twelve collections: {parts}", name, None, place)
    few = ", ".join(entry for entry in COLLECTIONS if not entry.startswith("beir/"))
    here = _searched_names()
    found = f", of which there are {', '.join(here[:_MOST_NAMED])}" if here else ""
    found += ", …" if len(here) > _MOST_NAMED else ""
    rule = (
        f"is neither an existing path nor a built-in collection; built in: {few}, beir/<name>; "
        f"{SEARCHED} names the folders in which others are looked for{found}"
    )
    return Problem(key, rule, name, nearest(name, (*here, *COLLECTIONS)), place)


def _searched_names() -> tuple[str, ...]:
    """The names, sorted, of the collections that lie in the folders of SEARCHED."""
    names: set[str] = set()
    for place in _searched():
        with contextlib.suppress(OSError):
            names |= {path.name for path in place.iterdir() if form_of(path) is not None}
    return tuple(sorted(names))


def _searched() -> tuple[Path, ...]:
    folders = filter(None, os.environ.get(SEARCHED, "").split(os.pathsep))
    return tuple(Path(place) for place in folders)


def _path(name: str) -> Path:
    """The absolute path that `name` stands for: as written, else in a folder of SEARCHED."""
    try:
        written = Path(name).expanduser()
    except RuntimeError:
        written = Path(name)
    if not written.is_absolute() and not _exists_at(written):
        found = (place / written for place in _searched())
        return next(filter(_exists_at, found), written).absolute()
    return written.absolute()


def _exists_at(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
