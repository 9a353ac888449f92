"""A process between two trials: what is collected, what is left alone, what is switched back."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from trainables.memory import uncollected

SETTLED = """
import gc
from trainables.memory import give_memory_back, settle

class Knot:
    def __init__(self):
        self.itself = self

give_memory_back()
assert gc.get_freeze_count() == 0
settle()
first = gc.get_freeze_count()
kept = [Knot() for _ in range(1000)]
settle()
print(first > 1000, gc.get_freeze_count() <= first)
kept.clear()
give_memory_back()
print(sum(isinstance(each, Knot) for each in gc.get_objects()))
"""


def test_garbage_of_later_trials_is_found_though_what_stays_is_left_alone() -> None:
    done = subprocess.run([sys.executable, "-c", SETTLED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True", "0"]


def test_the_collector_is_as_before_even_after_an_error() -> None:

    assert gc.isenabled()
    with pytest.raises(ValueError, match="inside"), uncollected():
        assert not gc.isenabled()
        raise ValueError("inside")
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
