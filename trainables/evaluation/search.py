"""Exact top-k of queries over a corpus that streams by: no index, no vector kept.

Two engines find the same passages. `torch` works on any device: it carries the k-th best score
from tile to tile and looks only at what beats it, so it costs little more than the matrix product.
`faiss` is FAISS's flat search on the CPU, kept as the field's independent yardstick. Both compare
float32 inner products, which may differ in the last bit as each brings its own matrix product; the
order of equal scores never differs (see `topk`).
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from trainables.errors import InvalidInput, Problem
from trainables.evaluation.topk import LOWEST, Ints, Scores, TopK, pack

Engine = Literal["faiss", "torch"]

TILES = {"cpu": (512, 2048), "cuda": (4096, 8192)}
"""Queries and passages whose scores are made at once: few enough for a processor's cache, or many
enough to fill a GPU."""

SLACK = 16
"""Candidates that FAISS is asked for beyond k, because it cuts ties as it likes."""


@cache
def _faiss() -> Any:
    """The library, or None where it is not installed or not complete."""
    try:
        import faiss
    except (ImportError, RuntimeError):  # RuntimeError: a GPU build without its CUDA libraries
        return None
    return faiss


class Search:
    """The search of Q queries, float32[Q, D], fed with the corpus piece by piece."""

    def __init__(
        self, queries: Tensor, depth: int, own_row: Ints | None = None, engine: Engine = "torch"
    ) -> None:
        """`own_row` int64[Q] is the row that a query must not find, -1 for none.

        Raises InvalidInput when FAISS is wanted and cannot be had.
        """
        if engine == "faiss" and (_faiss() is None or queries.device.type != "cpu"):
            rule = "needs faiss-cpu installed and vectors on the CPU"
            raise InvalidInput([Problem("engine", rule, engine, "torch")])
        self._queries = _finite(queries, "query")
        self._depth = depth
        self._own = np.full(len(queries), -1) if own_row is None else own_row
        self._engine = engine
        height, self._width = TILES.get(queries.device.type, TILES["cuda"])
        spans = [slice(i, i + height) for i in range(0, len(queries), height)]
        self._tiles = [(span, TopK(len(queries[span]), depth)) for span in spans]

    def add(self, passages: Tensor, first_row: int) -> None:
        """Search passages float32[C, D] that stand at rows `first_row` and on.

        Raises FloatingPointError when a vector is not finite.
        """
        passages = _finite(passages, "passage")
        if len(self._queries) == 0 or len(passages) == 0:
            return
        search = self._add_faiss if self._engine == "faiss" else self._add_torch
        with torch.autocast(passages.device.type, enabled=False):  # it would round the products
            search(passages, first_row)

    def result(self) -> Ints:
        """Keys int64[Q, depth] of the best passages so far, best first; see `topk.unpack`."""
        parts = [top.result() for _, top in self._tiles]
        return np.concatenate(parts) if parts else np.empty((0, self._depth), dtype=np.int64)

    def _add_torch(self, passages: Tensor, first_row: int) -> None:
        for start in range(0, len(passages), self._width):
            tile = passages[start : start + self._width]
            for span, top in self._tiles:
                scores = self._queries[span] @ tile.T
                self._hide_own(scores, self._own[span] - first_row - start)
                floor = torch.from_numpy(_raised(top.floor, scores, self._depth)).to(scores.device)
                flat = (scores >= floor[:, None]).flatten().nonzero().flatten()
                values = scores.flatten()[flat].cpu().numpy()
                query, column = np.divmod(flat.cpu().numpy(), len(tile))
                top.offer(query, pack(values, column + (first_row + start)))

    def _hide_own(self, scores: Tensor, column: Ints) -> None:
        lines = np.flatnonzero((column >= 0) & (column < scores.shape[1]))
        if len(lines):
            scores[torch.from_numpy(lines), torch.from_numpy(column[lines])] = float("-inf")

    def _add_faiss(self, passages: Tensor, first_row: int) -> None:
        faiss, corpus = _faiss(), passages.numpy()
        faiss.omp_set_num_threads(torch.get_num_threads())
        for span, top in self._tiles:
            scores, rows = _knn(faiss, self._queries[span].numpy(), corpus, self._depth)
            rows += first_row
            wanted = (scores >= top.floor[:, None]) & (rows != self._own[span, None])
            query, _ = np.nonzero(wanted)
            top.offer(query, pack(scores[wanted], rows[wanted]))


def _raised(floor: Scores, scores: Tensor, depth: int) -> Scores:
    """The floor, raised by what `scores` alone can fill where fewer than `depth` are known."""
    if floor.max(initial=LOWEST) > LOWEST or scores.shape[1] < depth:
        return floor
    kept: Scores = scores.topk(depth, sorted=False).values.amin(1).cpu().numpy()
    return np.maximum(floor, kept)


def _knn(faiss: Any, queries: Scores, corpus: Scores, depth: int) -> tuple[Scores, Ints]:
    """Scores and rows that hold, for each query, its best `depth` and one more, ties included.

    FAISS keeps any of several equal scores at its last place. A line whose last scores are all
    equal may lack one that the tie rule prefers, and is searched again in full.
    """
    wanted = min(depth + SLACK, len(corpus))
    scores, rows = faiss.knn(queries, corpus, wanted, faiss.METRIC_INNER_PRODUCT)
    if wanted == len(corpus):
        return scores, rows
    open_ = np.flatnonzero(scores[:, depth] <= scores[:, -1])
    if len(open_):
        every, their_rows = faiss.knn(
            queries[open_], corpus, len(corpus), faiss.METRIC_INNER_PRODUCT
        )
        order = np.lexsort((their_rows, -every))[:, :wanted]
        scores[open_] = np.take_along_axis(every, order, axis=1)
        rows[open_] = np.take_along_axis(their_rows, order, axis=1)
    return scores, rows


def _finite(vectors: Tensor, name: str) -> Tensor:
    if vectors.numel() and not all(bool(torch.isfinite(end)) for end in torch.aminmax(vectors)):
        raise FloatingPointError(f"the encoder made {name} vectors that are not finite")
    return vectors.float().contiguous()
