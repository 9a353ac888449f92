"""Machine labels: local models judge passages, and what they say becomes a label source.

Judged are the queries of every split, each with the passages that a searcher ranks highest for it
and with its human positives, so that the source's recall can be measured. Passages judged not
relevant stay in the source with grade 0: they are look-alikes that are known to be wrong.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.data.agreement import Agreement, agreement
from trainables.data.cache import JSON, Cache
from trainables.data.collections import (
    Collection,
    Judgements,
    open_collection,
    write_judgements,
)
from trainables.data.sources import (
    LABELS_FILE,
    LABELS_KIND,
    Pairs,
    annotation_key,
    load_labels,
    located,
)
from trainables.errors import InvalidInput, Problem, nearest
from trainables.model.encoder import Encoder
from trainables.prepare.judges import (
    CausalJudge,
    CrossEncoderJudge,
    Judge,
    Verdicts,
    load_prompt,
)
from trainables.prepare.pools import Pool, Progress, accelerator, dense_pool, lexical_pool
from trainables.spec import EncoderSpec

Ints = NDArray[np.int64]

VERDICTS_KIND = "verdicts"
"""Kind of cache folder that keeps the verdicts on a block of pairs."""

BLOCK = 256
"""Pairs judged between two savings: what an interruption can cost."""

_RULES = 1
"""Version of what annotators make of the same models and pairs."""


@dataclass(frozen=True)
class BiEncoder:
    """Grade 1 for a passage of the model's own top `depth` whose score is at least `least` and at
    least `share` of the query's best score, else 0. The first constant keeps queries without an
    answer free of labels, the second lets the number of positives follow the query."""

    model: str
    depth: int = 10
    least: float = 0.35
    share: float = 0.9
    query_length: int = 64
    passage_length: int = 64


@dataclass(frozen=True)
class CrossEncoder:
    """Grade 1 when a sequence classifier's probability of relevance is at least `threshold`."""

    model: str
    pool: str = "bm25"
    """Who finds the passages to judge: `bm25`, or a bi-encoder's name or folder."""
    depth: int = 10
    threshold: float = 0.5
    max_length: int = 512


@dataclass(frozen=True)
class CausalLM:
    """The grade that a causal language model answers to a prompt."""

    model: str
    prompt: str = "graded"
    """A name in `prompts/`, or a file of that form."""
    pool: str = "bm25"
    """Who finds the passages to judge: `bm25`, or a bi-encoder's name or folder."""
    depth: int = 10


Annotator = Union[BiEncoder, CrossEncoder, CausalLM]

ANNOTATORS: dict[str, Annotator] = {"minilm-l6": BiEncoder("packaged/all-MiniLM-L6-v2")}
"""Label sources that are made on demand. The constants of `minilm-l6` were set on the training
split of pydocs/small, where it gives about as many positives per query as the human labels."""


def ensure_labels(
    collection: Collection,
    source: str,
    cache: Cache,
    progress: Progress | None = None,
    min_grade: int = 1,
    source_min_grade: int = 1,
) -> Agreement:
    """The agreement of a label source with the human labels; the source is made if it is absent.

    The thresholds are those of the human labels and of the source. Safe when several processes
    call it. Raises InvalidInput for a source that neither the collection, nor the cache, nor
    ANNOTATORS has.
    """
    made = cache.find(LABELS_KIND, annotation_key(collection.fingerprint, source))
    if source not in collection.sources and made is None:
        if source not in ANNOTATORS:
            known = [*collection.sources, *ANNOTATORS]
            rule = f"is no label source of {collection.name}; known: {', '.join(known)}"
            raise InvalidInput([Problem("labels", rule, source, nearest(source, known))])
        _make(collection, ANNOTATORS[source], source, cache, progress)
    return compare(collection, source, cache, min_grade, source_min_grade)


def annotate(
    collection_name: str,
    annotator: Annotator,
    source: str,
    cache: Cache,
    progress: Progress | None = None,
) -> Agreement:
    """Let `annotator` judge a collection; `source` names its labels, a source like any other then.

    Verdicts are kept block by block, so an interrupted call goes on where it stopped. `progress`
    counts pairs (passages for a BiEncoder). Raises InvalidInput when the name is taken or unfit,
    or the model or the prompt cannot be used.
    """
    collection = open_collection(collection_name, cache)
    if source in collection.sources or not re.fullmatch(r"[A-Za-z0-9._-]+", source):
        rule = "must be a new name of letters, digits, dots, dashes and underscores"
        raise InvalidInput([Problem("source", rule, source)])
    folder = _make(collection, annotator, source, cache, progress)
    made_by = json.loads((folder / "annotator.json").read_text(encoding="utf-8"))
    if made_by != _description(annotator):
        rule = f"is the name of labels that were made otherwise: {made_by}; choose another"
        raise InvalidInput([Problem("source", rule, source)])
    return compare(collection, source, cache)


def compare(
    collection: Collection,
    source: str,
    cache: Cache,
    min_grade: int = 1,
    source_min_grade: int = 1,
) -> Agreement:
    """The agreement of a label source with the human labels of the training split, where there is
    one, else of all splits."""
    splits = ["train"] if "train" in collection.splits else list(collection.splits)
    human = _human(collection, splits)
    pairs, _ = located(collection, load_labels(collection, source, cache))
    inside = pairs.take(np.isin(pairs.query_rows, human.query_rows))
    return agreement(source, inside, human, min_grade, source_min_grade)


def _make(
    collection: Collection,
    annotator: Annotator,
    source: str,
    cache: Cache,
    progress: Progress | None,
) -> Path:
    def make(folder: Path) -> None:
        human = _human(collection, collection.splits)
        labels = _labels(collection, annotator, human, cache, progress)
        write_judgements(folder / LABELS_FILE, labels)
        text = json.dumps(_description(annotator), sort_keys=True, indent=1)
        (folder / "annotator.json").write_text(text + "\n", encoding="utf-8")

    return cache.folder(LABELS_KIND, annotation_key(collection.fingerprint, source), make)


def _labels(
    collection: Collection,
    annotator: Annotator,
    human: Pairs,
    cache: Cache,
    progress: Progress | None,
) -> Judgements:
    """The annotator's judgements; those of a query stand together, the likeliest answer first."""
    positives = human.take(human.grades >= 1)
    queries = np.unique(human.query_rows)
    if isinstance(annotator, BiEncoder):
        pool = _dense(collection, annotator, queries, positives, cache, progress)
        pairs, scores = _judged_pairs(pool, positives)
        grades = _threshold(pairs, scores, annotator)
    else:
        pool = _candidates(collection, annotator, queries, positives, cache)
        pairs, _ = _judged_pairs(pool, positives)
        verdicts = _verdicts(collection, annotator, pairs, cache, progress)
        grades, scores = verdicts.grades, verdicts.scores
    order = np.lexsort((pairs.passage_rows, -scores, pairs.query_rows))
    return Judgements(
        collection.queries.ids(pairs.query_rows[order]),
        collection.passages.ids(pairs.passage_rows[order]),
        grades[order],
    )


def _candidates(
    collection: Collection,
    annotator: CrossEncoder | CausalLM,
    queries: Ints,
    positives: Pairs,
    cache: Cache,
) -> Pool:
    if annotator.pool == "bm25":
        return lexical_pool(collection, queries, annotator.depth, positives)
    searcher = BiEncoder(annotator.pool, annotator.depth)
    return _dense(collection, searcher, queries, positives, cache, None)


def _dense(
    collection: Collection,
    annotator: BiEncoder,
    queries: Ints,
    positives: Pairs,
    cache: Cache,
    progress: Progress | None,
) -> Pool:
    settings = EncoderSpec(
        backbone=annotator.model,
        query_length=annotator.query_length,
        passage_length=annotator.passage_length,
    )
    encoder = Encoder.load(settings, seed=0).to(accelerator())
    return dense_pool(collection, queries, annotator.depth, positives, encoder, cache, progress)


def _judged_pairs(pool: Pool, positives: Pairs) -> tuple[Pairs, NDArray[np.float32]]:
    """The pool and the positives, each pair once, sorted by query and passage, with its score."""
    line, rank = np.nonzero(pool.rows >= 0)
    queries = np.concatenate([pool.query_rows[line], positives.query_rows])
    passages = np.concatenate([pool.rows[line, rank], positives.passage_rows])
    scores = np.concatenate([pool.scores[line, rank], pool.pair_scores])
    pairs = Pairs(queries, passages, np.zeros(len(queries), dtype=np.int16))
    _, first = np.unique(pairs.keys(), return_index=True)
    return pairs.take(first), scores[first]


def _threshold(
    pairs: Pairs, scores: NDArray[np.float32], annotator: BiEncoder
) -> NDArray[np.int16]:
    distinct, line = np.unique(pairs.query_rows, return_inverse=True)
    best = np.full(len(distinct), -np.inf, dtype=np.float32)
    np.maximum.at(best, line, scores)
    relevant = (scores >= annotator.least) & (scores >= annotator.share * best[line])
    return relevant.astype(np.int16)


def _verdicts(
    collection: Collection,
    annotator: CrossEncoder | CausalLM,
    pairs: Pairs,
    cache: Cache,
    progress: Progress | None,
) -> Verdicts:
    """The verdicts on all pairs, from the cache where they are; the model is loaded if needed."""
    description, parts = _description(annotator), []
    loaded: list[Judge] = []
    for start in range(0, len(pairs), BLOCK):
        block = pairs.take(np.arange(start, min(start + BLOCK, len(pairs))))

        def make(folder: Path, block: Pairs = block) -> None:
            if not loaded:
                loaded.append(_open(annotator))
            verdicts = loaded[0].judge(
                collection.queries.text(block.query_rows),
                collection.passages.text(block.passage_rows),
            )
            np.save(folder / "grades.npy", verdicts.grades)
            np.save(folder / "scores.npy", verdicts.scores)

        key: dict[str, JSON] = {
            "annotator": description,
            "collection": collection.fingerprint,
            "pairs": hashlib.sha256(block.keys().tobytes()).hexdigest(),
        }
        folder = cache.folder(VERDICTS_KIND, key, make)
        parts.append((np.load(folder / "grades.npy"), np.load(folder / "scores.npy")))
        if progress is not None:
            progress(start + len(block), len(pairs))
    grades, scores = zip(*parts, strict=True)
    return Verdicts(np.concatenate(grades), np.concatenate(scores))


def _open(annotator: CrossEncoder | CausalLM) -> Judge:
    if isinstance(annotator, CrossEncoder):
        model, tokenizer = _load(annotator.model, "AutoModelForSequenceClassification")
        return CrossEncoderJudge(model, tokenizer, annotator.threshold, annotator.max_length)
    prompt = load_prompt(annotator.prompt)
    model, tokenizer = _load(annotator.model, "AutoModelForCausalLM")
    return CausalJudge(model, tokenizer, prompt)


def _load(source: str, kind: str) -> tuple[Any, Any]:
    """A model with safetensors weights and its tokenizer, from a folder or a Hugging Face name."""
    import transformers

    # Half precision is slow on most CPUs, and on many it is not there at all.
    dtype = "auto" if accelerator().type == "cuda" else torch.float32
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model = getattr(transformers, kind).from_pretrained(
            source, trust_remote_code=False, use_safetensors=True, dtype=dtype
        )
    except (OSError, ValueError, KeyError) as error:
        rule = f"cannot be loaded: {str(error).strip().partition(chr(10))[0]}"
        raise InvalidInput([Problem("annotator.model", rule, source)]) from error
    return model.to(accelerator()).eval(), tokenizer


def _description(annotator: Annotator) -> dict[str, JSON]:
    """All that decides an annotator's verdicts: its settings, its prompt, its model's content."""
    described: dict[str, JSON] = {
        "kind": type(annotator).__name__,
        "rules": _RULES,
        **asdict(annotator),
        "content": _content(annotator.model),
    }
    if isinstance(annotator, CausalLM):
        prompt = load_prompt(annotator.prompt)
        described |= {"prompt": prompt.text, "answers": list(prompt.answers)}
    return described


def _content(model: str) -> str:
    """Hash of a folder's files; of a name nothing is known here, so it stands for itself."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    content = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                content.update(part)
    return content.hexdigest()[:20]


def _human(collection: Collection, splits: Sequence[str]) -> Pairs:
    """The human judgements of the splits; of a pair judged in several, the first."""
    tables = [located(collection, collection.judgements(split))[0] for split in splits]
    joined = Pairs(
        np.concatenate([table.query_rows for table in tables]),
        np.concatenate([table.passage_rows for table in tables]),
        np.concatenate([table.grades for table in tables]),
    )
    return joined.take(np.sort(np.unique(joined.keys(), return_index=True)[1]))
