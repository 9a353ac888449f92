"""Near-duplicates: found, grouped, and told from texts that are merely alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.data.duplicates import Groups, near_duplicates, normalised, overlap, shingles

WORDS = [f"word{i}" for i in range(400)]


def test_case_and_punctuation_do_not_count() -> None:
    assert normalised("  One, TWO:\n(three)! ") == "one two three"
    assert overlap(shingles("a b c d e f"), shingles("A, b; C d... e f")) == 1.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(WORDS[:30]), max_size=40), st.lists(st.sampled_from(WORDS[:30])))
def test_overlap_is_jaccards(left: list[str], right: list[str]) -> None:
    def sets(words: list[str]) -> set[str]:
        return {" ".join(words[i : i + 4]) for i in range(max(1, len(words) - 3))}

    mine, theirs = shingles(" ".join(left)), shingles(" ".join(right))
    one, two = sets(left), sets(right)
    assert len(mine) == len(one)
    assert overlap(mine, theirs) == pytest.approx(len(one & two) / len(one | two))


def test_copies_with_small_changes_are_grouped() -> None:
    rng = np.random.default_rng(0)
    texts, truth = [], []
    for group in range(60):
        words = rng.choice(WORDS, 80).tolist()
        for copy in range(1 + group % 4):
            changed = list(words)
            if copy:
                changed[int(rng.integers(80))] = f"new{copy}"
            texts.append(" ".join(changed))
            truth.append(group)
    found = near_duplicates(texts)
    firsts = [truth.index(group) for group in truth]
    assert found.tolist() == firsts


def test_nothing_and_little() -> None:
    assert near_duplicates([]).tolist() == []
    assert near_duplicates(["", "", "a", "a b", "a"]).tolist() == [0, 0, 2, 3, 2]


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
def test_groups_are_closed_and_named_by_their_first(pairs: list[tuple[int, int]]) -> None:
    groups = Groups(20)
    for left, right in pairs:
        groups.join(left, right)
    labels = groups.labels()
    assert all(labels[left] == labels[right] for left, right in pairs)
    assert all(labels[label] == label <= item for item, label in enumerate(labels.tolist()))
