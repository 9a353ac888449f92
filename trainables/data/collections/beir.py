"""The BEIR benchmark (Thakur et al., NeurIPS Datasets and Benchmarks 2021): its sets by name.

CQADupStack is twelve collections, as BEIR scores it. Four corpora may not be passed on by anybody;
their entries say where to ask for them. Where a revision is "main" no commit is pinned.
"""

from __future__ import annotations

from trainables.data.collections.builder import Builder
from trainables.data.collections.forms import Entry
from trainables.data.collections.hub import Repository, hub_entry
from trainables.errors import InvalidInput, Problem

_TEST, _ALL = ("test",), ("train", "dev", "test")

SETS: dict[str, tuple[str, int, tuple[str, ...], str]] = {
    "msmarco": ("web passages, sparse labels", 8_841_823, _ALL, "non-commercial research"),
    "trec-covid": ("articles on COVID-19", 171_332, _TEST, "CORD-19 licence"),
    "nfcorpus": ("nutrition and medicine", 3_633, _ALL, "academic use"),
    "nq": ("Wikipedia passages, real questions", 2_681_468, _TEST, "CC BY-SA 3.0"),
    "hotpotqa": ("Wikipedia, questions over two hops", 5_233_329, _ALL, "CC BY-SA 4.0"),
    "fiqa": ("financial questions", 57_638, _ALL, "not stated"),
    "arguana": ("counter-arguments", 8_674, _TEST, "CC BY 4.0"),
    "webis-touche2020": ("arguments", 382_545, _TEST, "CC BY 4.0"),
    "quora": ("duplicate questions", 522_931, ("dev", "test"), "not stated"),
    "dbpedia-entity": ("entities", 4_635_922, ("dev", "test"), "CC BY-SA 3.0"),
    "scidocs": ("citations between papers", 25_657, _TEST, "GPL-3.0"),
    "fever": ("claims to verify", 5_416_568, _ALL, "CC BY-SA 3.0"),
    "climate-fever": ("claims on climate", 5_416_593, _TEST, "not stated"),
    "scifact": ("scientific claims", 5_183, ("train", "test"), "CC BY-NC 2.0"),
}
"""Name -> what it holds, passages, splits, licence."""

_PINNED = {
    "scifact": (
        "b3b5335604bf5ee3c4447671af975ea25143d4f5",
        "2938d17dc3b09882fdb8c12bbbe2e2dc0e75a029",
    ),
    "nfcorpus": (
        "b5026a0e96e8a7ac4f95f482a596389289d46269",
        "a451b3b26d3ae1358f259c1a3a4dd61fcea35a65",
    ),
    "fiqa": (
        "979c07a7cb5ccc6ca009792241fa1250b98055dd",
        "252958f2d646e22cab6d0c72dd3f0d5de6d0655a",
    ),
    "trec-covid": (
        "7e16fde3016c639c7f856e803f4bab92645562c4",
        "532ac68ee6756ac22c9346eebf65bd3c6a042e10",
    ),
    "hotpotqa": (
        "a7e8bab212f5a89f9be1bc9b654aa6dfa317f32b",
        "b15429e9244c8ec966985d7778427c3b1543b314",
    ),
    "nq": (
        "b7253e6c379163d024ddb1d6948152a91a2e3b46",
        "519acd4e48bb3e5da22b2b888ce36c614f4f2bc9",
    ),
}
"""Commits of the texts and of the judgements."""

_QUERIES = {"scifact": 1_109, "nfcorpus": 3_237, "fiqa": 6_648, "arguana": 1_406, "nq": 3_452}

CQADUPSTACK = {
    "android": (22_998, 699, "f46a197baaae43b4f621051089b82a364682dfeb"),
    "english": (40_221, 1_570, "ad9991cb51e31e31e430383c75ffb2885547b5f0"),
    "gaming": (45_301, 1_595, "4885aa143210c98657558c04aaf3dc47cfb54340"),
    "gis": (37_637, 885, "5003b3064772da1887988e05400cf3806fe491f2"),
    "mathematica": (16_705, 804, "90fceea13679c63fe563ded68f3b6f06e50061de"),
    "physics": (38_316, 1_039, "79531abbd1fb92d06c6d6315a0cbbbf5bb247ea4"),
    "programmers": (32_176, 876, "6184bc1440d2dbc7612be22b50686b8826d22b32"),
    "stats": (42_269, 652, "65ac3a16b8e91f9cee4c9828cc7c335575432a2a"),
    "tex": (68_184, 2_906, "46989137a86843e03a6195de44b09deda022eec7"),
    "unix": (47_382, 1_072, "6c6430d3a6d36f8d2a829195bc5dc94d7e063e53"),
    "webmasters": (17_405, 506, "160c094312a0e1facb97e55eeddb698c0abe3571"),
    "wordpress": (48_605, 541, "4ffe81d471b1924886b33c7567bfb200e9eec5c4"),
}
"""Part -> passages, queries, commit. The Hub has them as `mteb/cqadupstack-<part>`."""

_CLOSED = {
    "bioasq": ("biomedical articles", 14_914_602, "participants-area.bioasq.org"),
    "signal1m": ("news and tweets", 2_866_316, "research.signal-ai.com"),
    "trec-news": ("Washington Post articles", 594_977, "trec.nist.gov/data/wapost"),
    "robust04": ("newswire", 528_155, "trec.nist.gov/data/cd45"),
}
"""Name -> what it holds, passages, whom to ask."""


def entries() -> list[Entry]:
    """The registry entries `beir/<name>`, `beir/cqadupstack/<part>`, `msmarco` and `nq`."""
    sets = [_entry(f"beir/{name}", name) for name in SETS]
    parts = [_part(name) for name in CQADUPSTACK]
    closed = [_closed_entry(name) for name in _CLOSED]
    return [*sets, *parts, *closed, _entry("msmarco", "msmarco"), _entry("nq", "nq")]


def _entry(key: str, name: str) -> Entry:
    summary, passages, splits, licence = SETS[name]
    texts, judged = _PINNED.get(name, ("main", "main"))
    expected = {"passages": passages}
    if name in _QUERIES:
        expected["queries"] = _QUERIES[name]
    return hub_entry(
        key,
        f"BEIR: {summary}",
        Repository(f"BeIR/{name}", texts),
        Repository(f"BeIR/{name}-qrels", judged),
        licence,
        splits,
        expected,
    )


def _part(name: str) -> Entry:
    passages, queries, commit = CQADUPSTACK[name]
    repository = Repository(f"mteb/cqadupstack-{name}", commit)
    return hub_entry(
        f"beir/cqadupstack/{name}",
        f"BEIR: duplicate questions of StackExchange, {name}",
        repository,
        repository,
        "Apache-2.0",
        _TEST,
        {"passages": passages, "queries": queries},
    )


def _closed_entry(name: str) -> Entry:
    summary, passages, owner = _CLOSED[name]
    key = f"beir/{name}"

    def read(builder: Builder) -> None:
        rule = (
            f"may not be passed on: ask for it at {owner}, bring it into BEIR's layout and name "
            "that folder instead"
        )
        raise InvalidInput([Problem("collection", rule, key)])

    return Entry(
        name=key,
        summary=f"BEIR: {summary}; to be asked for at {owner}",
        origin=owner,
        revision=lambda: "none",
        licence="by agreement with the owner",
        splits=_TEST,
        fingerprint=lambda: key,
        read=read,
        expected={"passages": passages},
    )
