"""Evaluation against its peers: BEIR with sentence-transformers, on the same weights and data.

    python tests/bench/evaluation.py quality ../shared/data/nfcorpus ../shared/data/scifact
    python tests/bench/evaluation.py search
    python tests/bench/evaluation.py memory --sizes 10000 100000 1000000
    python tests/bench/evaluation.py published ../shared/data/nfcorpus ../shared/data/scifact

`--peer-python` is an interpreter that has `beir` beside this project's packages; the peer is left
out where it has not. Every measurement is a process of its own; the two sides take turns in each
repeat, so that both meet the same machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT / "tests/bench"]

BACKBONE = "packaged/all-MiniLM-L6-v2"
PUBLISHED = {"nfcorpus": 0.3159, "scifact": 0.6451}
"""nDCG@10 of sentence-transformers/all-MiniLM-L6-v2 on the test split, of its MTEB results."""
EQUAL_SCORES = 1e-6
"""Inner products of unit vectors that differ by this much are float32's rounding apart."""
TOLERANCE = 1e-6
"""Per-query nDCG@10 may differ by this much before the query is listed."""


def main() -> None:
    arguments = parser().parse_args()
    arguments.run(arguments)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts = top.add_subparsers(required=True)
    quality = part(parts, "quality", run_quality, "encode, search and score whole collections")
    quality.add_argument("collections", nargs="+", type=Path)
    quality.add_argument("--layers", type=int, default=6)
    quality.add_argument("--length", type=int, default=128)
    quality.add_argument("--split", default="test")
    search = part(parts, "search", run_search, "search and score given vectors")
    search.add_argument("--passages", type=int, default=100_000)
    search.add_argument("--queries", type=int, default=1000)
    search.add_argument("--width", type=int, default=384)
    memory = part(parts, "memory", run_memory, "peak memory by size of the collection")
    memory.add_argument("--sizes", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    published = part(parts, "published", run_published, "the backbone against its known figures")
    published.add_argument("collections", nargs="+", type=Path)
    published.add_argument("--cache", help="folder of kept embeddings, to go on where it stopped")
    child = parts.add_parser("child")
    child.add_argument("job")
    child.add_argument("task", type=json.loads)
    child.set_defaults(run=run_child)
    return top


def part(parts: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = parts.add_parser(name, help=text)
    added.add_argument("--peer-python", default=sys.executable)
    added.add_argument("--threads", type=int, default=2)
    added.add_argument("--repeats", type=int, default=3)
    added.set_defaults(run=run)
    return added


def run_quality(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "model"
        start(sys.executable, "save", {"layers": arguments.layers, "folder": str(model)})
        for folder in arguments.collections:
            task = {
                "collection": str(folder.resolve()),
                "split": arguments.split,
                "model": str(model),
                "length": arguments.length,
                "threads": arguments.threads,
                "cache": str(Path(temporary) / "cache"),
            }
            start(sys.executable, "tokens", task)
            ours, theirs = paired(arguments, "ours", "theirs", task)
            report_quality(folder.name, ours, theirs)


def report_quality(name: str, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    print(f"\n## {name}")
    for side, results in (("ablate", ours), ("BEIR + sentence-transformers", theirs)):
        if not results:
            continue
        seconds = [result["seconds"] for result in results]
        values = results[0]["ndcg"].values()
        line = (
            f"{side}: {spread(seconds)} s, {results[0]['passages'] / min(seconds):.1f} passages/s"
        )
        line += f", {max(r['memory'] for r in results):.0f} MB"
        line += f", nDCG@10 {statistics.mean(values):.5f}"
        if "share" in results[0]:
            shares = ", ".join(f"{100 * result['share']:.0f}" for result in results)
            line += f", {shares} % of the GEMM peak meanwhile"
        print(line)
    if theirs:
        pairs = {q: (v, theirs[0]["ndcg"].get(q)) for q, v in ours[0]["ndcg"].items()}
        differ = {q: p for q, p in pairs.items() if p[1] is None or abs(p[0] - p[1]) > TOLERANCE}
        ratio = min(r["seconds"] for r in theirs) / min(r["seconds"] for r in ours)
        print(f"{ratio:.2f} times as fast; {len(differ)} of {len(pairs)} queries differ")
        for query, (mine, other) in list(differ.items())[:10]:
            why = cause(ours[0]["top"][query], theirs[0]["top"].get(query, []))
            print(f"  {query}: {mine} and {other}; {why}")


def cause(ours: list[list[Any]], theirs: list[list[Any]]) -> str:
    """Why two top tens of (passage, score) earn different values."""
    apart = [pair for pair in zip(ours, theirs, strict=False) if pair[0][0] != pair[1][0]]
    gap = max((abs(mine[1] - other[1]) for mine, other in apart), default=0.0)
    if len(ours) == len(theirs) and gap <= EQUAL_SCORES:
        return f"{len(apart)} places hold equal scores (to {gap:.1g}) in another order"
    return f"scores at {len(apart)} places differ by up to {gap:.2g}"


def run_search(arguments: argparse.Namespace) -> None:
    task = {
        "passages": arguments.passages,
        "queries": arguments.queries,
        "width": arguments.width,
        "threads": arguments.threads,
    }
    ours, theirs = paired(arguments, "search-ours", "search-theirs", task)
    flat = [start(sys.executable, "search-ours", {**task, "engine": "faiss"})]
    for side, results in (("ablate", ours), ("ablate, faiss engine", flat), ("BEIR", theirs)):
        for key in ("search", "score", "total"):
            if results:
                print(f"{side}, {key}: {spread([result[key] for result in results])} s")
    if theirs:
        ratio = min(r["total"] for r in theirs) / min(r["total"] for r in ours)
        gap = abs(ours[0]["ndcg"] - theirs[0]["ndcg"])
        print(f"{ratio:.1f} times as fast; mean nDCG@10 differs by {gap:.2g}")


def run_memory(arguments: argparse.Namespace) -> None:
    print("| passages | seconds | peak private MB | peak MB with mapped files |\n|---|---|---|---|")
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as temporary:
            task = {"size": size, "folder": temporary, "threads": arguments.threads}
            start(sys.executable, "corpus", task)
            result = start(sys.executable, "stream", task)
        row = (f"{size:,}", *(f"{result[k]:.0f}" for k in ("seconds", "memory", "resident")))
        print(f"| {' | '.join(row)} |")


def run_published(arguments: argparse.Namespace) -> None:
    print("| collection | nDCG@10 | published | difference |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for folder in arguments.collections:
            task = {"collection": str(folder.resolve()), "threads": arguments.threads}
            task["cache"] = arguments.cache or temporary
            found = start(sys.executable, "published", task)["ndcg"]
            known = PUBLISHED[folder.name]
            print(f"| {folder.name} | {found:.4f} | {known:.4f} | {found - known:+.4f} |")


def paired(
    arguments: argparse.Namespace, ours: str, theirs: str, task: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Results of both sides, which take turns; none of the peer where it is not installed."""
    found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    has_peer = subprocess.run([arguments.peer_python, "-c", "import beir"], capture_output=True)
    if has_peer.returncode:
        print(f"{arguments.peer_python} has no beir: the peer is left out")
    for _ in range(arguments.repeats):
        found[0].append(start(sys.executable, ours, task))
        if has_peer.returncode == 0:
            found[1].append(start(arguments.peer_python, theirs, task))
    return found


def start(python: str, job: str, task: dict[str, Any]) -> dict[str, Any]:
    command = [python, __file__, "child", job, json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{job} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def run_child(arguments: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(arguments.task.get("threads", 1))
    print(json.dumps(JOBS[arguments.job](arguments.task)))


def save(task: dict[str, Any]) -> dict[str, Any]:
    from trainables.model.encoder import Encoder
    from trainables.spec import EncoderSpec

    settings = EncoderSpec(
        backbone=BACKBONE, layers=task["layers"], query_length=512, passage_length=512
    )
    Encoder.load(settings, seed=0).save(task["folder"])
    return {}


def our_encoder(task: dict[str, Any]) -> Any:
    from trainables.model.encoder import Encoder

    lengths = {"query_length": task["length"], "passage_length": task["length"]}
    return Encoder.from_folder(task["model"], lengths)


def tokens(task: dict[str, Any]) -> dict[str, Any]:
    """Opens and tokenises the collection, which all trials share and the peer does each time."""
    from trainables.data.cache import Cache
    from trainables.data.collections import open_collection
    from trainables.data.tokenize import tokenize

    cache = Cache(Path(task["cache"]))
    texts = open_collection(task["collection"], cache).passages
    tokenize(texts, our_encoder(task).tokenizer_path, "", task["length"], cache, texts.fingerprint)
    return {}


def ours(task: dict[str, Any]) -> dict[str, Any]:
    from trainables.data.cache import Cache
    from trainables.data.collections import open_collection, parse_ref
    from trainables.data.tokenize import tokenize
    from trainables.evaluation.evaluate import evaluate

    cache, encoder = Cache(Path(task["cache"])), our_encoder(task)
    ref = parse_ref(f"{task['collection']}/{task['split']}")
    texts = open_collection(task["collection"], cache).passages
    lengths = tokenize(
        texts, encoder.tokenizer_path, "", task["length"], cache, texts.fingerprint
    ).lengths
    peaks = GemmPeaks()
    with watched() as seen:
        (scores,) = evaluate(encoder, [ref], cache, progress=peaks)
    seen["seconds"] -= peaks.seconds
    config = encoder.passage.config
    per_token = 8 * config.hidden_size**2 + 4 * config.hidden_size * config.intermediate_size
    work = per_token * lengths + 4 * config.hidden_size * lengths**2
    ndcg = dict(zip(scores.query_ids, scores.per_query["ndcg_at_10"].tolist(), strict=True))
    done = float(work.sum()) * config.num_hidden_layers / seen["seconds"]
    run = scores.run
    top = {
        query: list(zip(run.passage_ids(i)[:10], run.scores[i, :10].tolist(), strict=False))
        for i, query in enumerate(run.query_ids)
    }
    return {
        **seen,
        "ndcg": ndcg,
        "passages": len(texts),
        "share": done / peaks.median(),
        "top": top,
    }


def published(task: dict[str, Any]) -> dict[str, Any]:
    """The packaged model as it comes, at its own length of 256 tokens."""
    from trainables.data.cache import Cache
    from trainables.data.collections import parse_ref
    from trainables.evaluation.evaluate import evaluate
    from trainables.model.encoder import Encoder

    ref = parse_ref(f"{task['collection']}/test")
    encoder, cache = Encoder.from_folder(BACKBONE), Cache(Path(task["cache"]))
    (scores,) = evaluate(encoder, [ref], cache, keep_embeddings=True)
    return {"ndcg": scores.metrics[f"{ref.label}/ndcg_at_10"]}


def theirs(task: dict[str, Any]) -> dict[str, Any]:
    import pytrec_eval
    from beir.datasets.data_loader import GenericDataLoader
    from beir.retrieval.evaluation import EvaluateRetrieval
    from beir.retrieval.models import SentenceBERT
    from beir.retrieval.search.dense import DenseRetrievalExactSearch

    corpus, queries, qrels = GenericDataLoader(task["collection"]).load(split=task["split"])
    model = SentenceBERT(task["model"], max_length=task["length"], device="cpu")
    with watched() as seen:
        searcher = DenseRetrievalExactSearch(model, batch_size=32, show_progress_bar=False)
        retriever = EvaluateRetrieval(searcher, score_function="cos_sim")
        results = retriever.retrieve(corpus, queries)
        retriever.evaluate(qrels, results, retriever.k_values)
    values = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_10"}).evaluate(results)
    ndcg = {query: value["ndcg_cut_10"] for query, value in values.items()}
    top = {}
    for query, line in results.items():  # in the order of trec_eval: equal scores by id, last first
        best = sorted(((score, passage) for passage, score in line.items()), reverse=True)[:10]
        top[query] = [(passage, score) for score, passage in best]
    return {**seen, "ndcg": ndcg, "passages": len(corpus), "top": top}


def vectors(task: dict[str, Any]) -> tuple[Any, Any, dict[str, dict[str, int]]]:
    """Random unit vectors, and 20 graded passages per query, some of which are found."""
    import torch

    generator = torch.Generator().manual_seed(0)
    shape = (task["passages"], task["width"])
    passages = torch.nn.functional.normalize(torch.randn(shape, generator=generator), dim=1)
    judged = torch.randint(0, task["passages"], (task["queries"], 20), generator=generator)
    noise = torch.randn((task["queries"], task["width"]), generator=generator) / 40
    queries = torch.nn.functional.normalize(passages[judged[:, 0]] + noise * 3, dim=1)
    qrels = {
        f"q{i}": {f"p{row}": 2 if rank < 3 else 1 for rank, row in enumerate(line)}
        for i, line in enumerate(judged.tolist())
    }
    return queries, passages, qrels


def search_ours(task: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    import pytrec_eval  # noqa: F401  (loaded before the clock starts, as BEIR loads it)

    from trainables.data.collections import Judgements
    from trainables.evaluation.metrics import DEFAULT_METRICS, parse_metrics
    from trainables.evaluation.reference import verify
    from trainables.evaluation.scoring import judged, score_rows
    from trainables.evaluation.search import Search
    from trainables.evaluation.topk import unpack

    queries, passages, qrels = vectors(task)
    lines = [(q, p, grade) for q, known in qrels.items() for p, grade in known.items()]
    names, ids, grades = zip(*lines, strict=True)
    judgements = Judgements(names, ids, np.array(grades, dtype=np.int16))
    chosen = parse_metrics(DEFAULT_METRICS, 1000)
    started = time.perf_counter()
    search = Search(queries, 1000, engine=task.get("engine", "torch"))
    for start_row in range(0, len(passages), 8192):
        search.add(passages[start_row : start_row + 8192], start_row)
    rows, _ = unpack(search.result())
    searched = time.perf_counter()
    truth = judged(judgements, lambda found: np.array([int(p[1:]) for p in found]), 1)
    values = score_rows(rows, truth, chosen)
    verify(values, rows, truth, chosen)
    ended = time.perf_counter()
    return laps(started, searched, ended, float(values["ndcg_at_10"].mean()))


def search_theirs(task: dict[str, Any]) -> dict[str, Any]:
    from beir.retrieval.evaluation import EvaluateRetrieval
    from beir.retrieval.search.dense import DenseRetrievalExactSearch

    queries, passages, qrels = vectors(task)

    class Given:
        """Hands out the vectors; all texts have one length, so BEIR's sort keeps their order."""

        handed = 0

        def encode_queries(self, texts: list[str], **_: Any) -> Any:
            return queries

        def encode_corpus(self, texts: list[Any], **_: Any) -> Any:
            self.handed += len(texts)
            return passages[self.handed - len(texts) : self.handed]

    corpus = {f"p{row}": {"title": "", "text": ""} for row in range(len(passages))}
    searcher = DenseRetrievalExactSearch(Given(), show_progress_bar=False)
    retriever = EvaluateRetrieval(searcher, score_function="dot")
    started = time.perf_counter()
    results = retriever.retrieve(corpus, dict.fromkeys(qrels, ""))
    searched = time.perf_counter()
    ndcg, *_ = retriever.evaluate(qrels, results, retriever.k_values)
    return laps(started, searched, time.perf_counter(), ndcg["NDCG@10"])


def laps(started: float, searched: float, ended: float, ndcg: float) -> dict[str, Any]:
    return {
        "search": searched - started,
        "score": ended - searched,
        "total": ended - started,
        "ndcg": ndcg,
    }


def corpus(task: dict[str, Any]) -> dict[str, Any]:
    """A synthetic collection, opened and tokenised."""
    import random

    draw = random.Random(0)
    folder = Path(task["folder"]) / "synthetic"
    (folder / "qrels").mkdir(parents=True)
    words = ["array", "matrix", "vector", "sort", "sum", "mean", "filter", "index", "shape", "axis"]
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for row in range(task["size"]):
            text = " ".join(draw.choices(words, k=draw.randint(5, 40)))
            file.write(json.dumps({"_id": f"p{row}", "text": f"{text} {row}"}) + "\n")
    queries = [json.dumps({"_id": f"q{i}", "text": f"sum of array {i}"}) for i in range(300)]
    (folder / "queries.jsonl").write_text("\n".join(queries) + "\n", encoding="utf-8")
    lines = [f"q{i}\tp{i * 7}\t1" for i in range(300)]
    table = "\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n"
    (folder / "qrels" / "test.tsv").write_text(table, encoding="utf-8")
    stub_task = {**task, "collection": str(folder), "cache": str(Path(task["folder"]) / "cache")}
    from trainables.data.cache import Cache
    from trainables.data.collections import open_collection
    from trainables.data.tokenize import tokenize

    cache = Cache(Path(stub_task["cache"]))
    texts = open_collection(str(folder), cache).passages
    tokenize(texts, bag_encoder().tokenizer_path, "", 128, cache, texts.fingerprint)
    return {}


def bag_encoder() -> Any:
    """An encoder that costs next to nothing: what is seen is the evaluation's own memory."""
    import numpy as np
    import torch

    from trainables.model.encoder import resolve_backbone
    from trainables.spec import EncoderSpec
    from trainables.tokens import Tokens

    class Bag(torch.nn.Module):
        settings = EncoderSpec(backbone=BACKBONE)
        tokenizer_path = resolve_backbone(BACKBONE)
        dimension = 384
        device = torch.device("cpu")

        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.EmbeddingBag(30522, 384)

        def inference(self, precision: str) -> Any:
            return torch.inference_mode()

        def encode(self, texts: Tokens, role: str) -> torch.Tensor:
            offsets = np.asarray(texts.offsets)
            ids = torch.from_numpy(texts.ids[offsets[0] : offsets[-1]].astype(np.int64))
            found: torch.Tensor = self.table(ids, torch.from_numpy(offsets[:-1] - offsets[0]))
            return torch.nn.functional.normalize(found, dim=-1)

    return Bag()


def stream(task: dict[str, Any]) -> dict[str, Any]:
    from trainables.data.cache import Cache
    from trainables.data.collections import parse_ref
    from trainables.evaluation.evaluate import evaluate

    folder = Path(task["folder"])
    refs = [parse_ref(f"{folder / 'synthetic'}/test")]
    encoder = bag_encoder()
    with watched() as seen:
        evaluate(encoder, refs, Cache(folder / "cache"))
    return seen


class GemmPeaks:
    """The float32 matrix product's rate, measured between the chunks of a running evaluation.

    The machine's speed drifts within a minute, so a peak seen before or after it says little.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        """What the measurements took."""
        self._rates: list[float] = []

    def __call__(self, done: int, size: int) -> None:
        started = time.perf_counter()
        self._rates.append(gemm_rate())
        self.seconds += time.perf_counter() - started

    def median(self) -> float:
        """Floating-point operations per second."""
        return statistics.median(self._rates)


def gemm_rate() -> float:
    """Floating-point operations per second of a large float32 matrix product, the best of some."""
    import torch

    left, right = torch.randn(2048, 2048), torch.randn(2048, 2048)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """Seconds, and the peak of this process's memory in MB: private (`memory`) and `resident`."""
    seen: dict[str, float] = {"memory": 0.0, "resident": 0.0}
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
            fields = {
                line.split(":")[0]: line.split()[1] for line in status if line.startswith("Rss")
            }
            fields |= {
                line.split(":")[0]: line.split()[1] for line in status if line[:5] == "VmRSS"
            }
            seen["memory"] = max(seen["memory"], int(fields["RssAnon"]) / 1024)
            seen["resident"] = max(seen["resident"], int(fields["VmRSS"]) / 1024)
            ended.wait(0.05)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    started = time.perf_counter()
    try:
        yield seen
    finally:
        seen["seconds"] = time.perf_counter() - started
        ended.set()
        watcher.join()


def spread(seconds: list[float]) -> str:
    return f"{min(seconds):.2f} to {max(seconds):.2f}"


JOBS = {
    "save": save,
    "tokens": tokens,
    "ours": ours,
    "theirs": theirs,
    "published": published,
    "search-ours": search_ours,
    "search-theirs": search_theirs,
    "corpus": corpus,
    "stream": stream,
}

if __name__ == "__main__":
    main()
