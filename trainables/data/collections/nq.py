"""`nq/dpr`: Natural Questions as dense retrievers train on it, over 21 million Wikipedia passages.

Questions of Kwiatkowski et al. (TACL 2019) with the passages of Karpukhin et al. (EMNLP 2020), in
Tevatron's files. A folder of such files is the same collection without the network. `nq` itself is
BEIR's set, which has judgements for its test queries alone.
"""

from __future__ import annotations

from pathlib import Path

from trainables.data.collections import contexts
from trainables.data.collections.builder import Builder
from trainables.data.collections.forms import Entry
from trainables.data.collections.hub import failures, unreachable
from trainables.data.collections.reading import read_records

_REVISION = "main"
_CORPUS = ("Tevatron/wikipedia-nq-corpus", "corpus.jsonl.gz")
_TRAINING = (
    ("Tevatron/wikipedia-nq", "nq-train.jsonl.gz"),
    ("Tevatron/wikipedia-nq", "nq-dev.jsonl.gz"),
)


def read(builder: Builder) -> None:
    """Reads the collection from the Hub. Raises InvalidInput when it is out of reach."""
    builder.merge()
    contexts.read_corpus(_fetched(*_CORPUS), builder)
    for repository, name in _TRAINING:
        file = _fetched(repository, name)
        contexts.read_training(file, read_records, builder, own_passages=False)


def _fetched(repository: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, name, repo_type="dataset", revision=_REVISION))
    except failures() as error:
        raise unreachable("nq/dpr", f"{repository}@{_REVISION}", error) from error


def entries() -> list[Entry]:
    """The registry entry `nq/dpr`."""
    return [
        Entry(
            name="nq/dpr",
            summary="Natural Questions with DPR's Wikipedia passages",
            origin="huggingface.co/datasets/Tevatron/wikipedia-nq",
            revision=lambda: f"{_REVISION} (not pinned)",
            licence="CC BY-SA 3.0",
            splits=("train", "dev"),
            fingerprint=lambda: f"Tevatron/wikipedia-nq@{_REVISION}",
            read=read,
            expected={"passages": 21_015_324},
        )
    ]
