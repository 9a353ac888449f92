"""Collections: passages, queries, judgements; one module per form in which they come."""

from __future__ import annotations

from trainables.data.collections.collection import (
    Collection,
    find_collection,
    fingerprint,
    open_collection,
)
from trainables.data.collections.faults import Fault, UnusableCollection
from trainables.data.collections.forms import Entry
from trainables.data.collections.judgements import Judgements, read_judgements, write_judgements
from trainables.data.collections.refs import JudgeRef, Ref, parse_ref, parse_refs
from trainables.data.collections.registry import COLLECTIONS, anywhere, short_name, splits_of
from trainables.data.collections.texts import Texts

__all__ = [
    "COLLECTIONS",
    "Collection",
    "Entry",
    "Fault",
    "JudgeRef",
    "Judgements",
    "Ref",
    "Texts",
    "UnusableCollection",
    "anywhere",
    "find_collection",
    "fingerprint",
    "open_collection",
    "parse_ref",
    "parse_refs",
    "read_judgements",
    "short_name",
    "splits_of",
    "write_judgements",
]
