"""`pydocs`: documentation becomes passages, queries and links."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainables.data.audit import inspect
from trainables.data.cache import Cache
from trainables.data.collections import Collection, fingerprint, open_collection
from trainables.data.collections import pydocs as module
from trainables.data.collections.pydocs import Documented, _resolved, parse

DOC = """sort(a, axis=-1)

Return a sorted `copy` of
an :func:`~numpy.array`.

The sort is stable [1]_.

Parameters
----------
a : array_like
    What to sort.

See Also
--------
ndarray.sort : In place.
argsort, lexsort: Indirect.
:func:`~numpy.partition` : Partial.
numpy.
    continued

Notes
-----
Sorting is ``O(n log n)``.

Examples
--------
>>> sort([2, 1])
[1, 2]
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return open_collection("pydocs/small", Cache(tmp_path_factory.mktemp("cache")))


def test_a_docstring_is_cut_into_its_parts() -> None:
    entry = parse("numpy.sort", ["numpy.core.sort"], DOC)
    assert entry.summary == "Return a sorted copy of an numpy.array."
    assert entry.body == (
        "The sort is stable. Parameters a : array_like What to sort. Notes Sorting is O(n log n)."
    )
    assert entry.links == ("ndarray.sort", "argsort", "lexsort", "numpy.partition", "numpy")


def test_links_are_resolved_from_within() -> None:
    def entry(name: str, *links: str, aliases: tuple[str, ...] = ()) -> Documented:
        return Documented(name, aliases, "", "", links)

    entries = [
        entry("numpy.sort", "ndarray.sort", "argsort", "np.argsort", "nowhere", "sort"),
        entry("numpy.ndarray.sort", "sort", "other"),
        entry("numpy.argsort", "msort", aliases=("numpy.msort",)),
        entry("numpy.ndarray.other", "numpy.msort"),
    ]
    assert _resolved(entries) == [[1, 2], [3], [], [2]]


def test_the_small_collection_is_what_it_promises(small: Collection) -> None:
    assert small.splits == ("train", "dev", "test") and small.sources == ()
    assert 800 < len(small.passages) < 2000
    judged = {split: small.judgements(split).by_query() for split in small.splits}
    assert len(judged["train"]) > 2 * len(judged["test"]) > len(judged["dev"])
    for rows in judged.values():
        for query, grades in rows.items():
            assert query.startswith("query:")
            assert set(grades.values()) <= {1, 2} and 2 in grades.values()
    several = sum(len(grades) > 1 for grades in judged["train"].values())
    assert several > len(judged["train"]) / 2
    assert not [fault for fault in small.warnings if fault.kind.startswith("dangling")]
    assert any("left out" in note for note in small.notes)
    identifier = "numpy.sort"
    (text,) = small.passages.text(small.passages.rows([identifier]))
    assert text.startswith("numpy.sort") and "See Also" not in text and ">>>" not in text


def test_no_query_stands_in_two_splits(small: Collection) -> None:
    audit = inspect("pydocs/small", Cache(small.folder.parents[1]))
    assert len(audit.overlaps) == 2
    assert all(o.queries == o.queries_normalised == o.test_queries == 0 for o in audit.overlaps)
    assert audit.problems == small.warnings


def test_near_duplicate_bodies_stand_in_one_split() -> None:
    body = "word " * 10 + " ".join(f"word{i}" for i in range(60))
    entries = [Documented(f"m.f{i}", (), f"summary {i}", f"{body} end{i}", ()) for i in range(40)]
    others = [
        Documented(f"m.g{i}", (), f"summary g{i}", " ".join(f"{i}x{j}" for j in range(40)), ())
        for i in range(40)
    ]
    sides = module._sides([*entries, *others], [[0, 41]])
    assert len(set(sides[:40])) == 1 and sides[41] == sides[0]
    assert len(set(sides[40:])) > 1


def test_reading_imports_nothing_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = set(sys.modules)
    open_collection("pydocs/small", Cache(tmp_path))
    assert not {name for name in set(sys.modules) - before if name.startswith("numpy.testing")}
    assert capfd.readouterr() == ("", "")


def test_a_broken_module_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "brokenpkg"
    package.mkdir()
    words = " ".join(f"word{i}" for i in range(30))
    (package / "__init__.py").write_text(
        f'def works():\n    """Say what works here.\n\n    {words}\n    """\n'
        "import warnings\nwarnings.warn('noise')\nprint('noise')\n"
    )
    (package / "broken.py").write_text("import nothing_of_that_name\n")
    (package / "exits.py").write_text("raise RuntimeError('no display')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    entries, notes = module.documented(["brokenpkg"])
    assert [entry.name for entry in entries] == ["brokenpkg.works"]
    assert len([note for note in notes if note.startswith("not imported: brokenpkg.")]) == 2


def test_the_fingerprint_follows_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    first = fingerprint("pydocs")
    assert first != fingerprint("pydocs/small")
    monkeypatch.setattr(module, "_version", lambda package: "99.0")
    assert fingerprint("pydocs") != first
