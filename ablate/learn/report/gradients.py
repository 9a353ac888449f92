"""Where the gradient went, loss by loss and temperature by temperature, beside what theory says.

Each trial logs the shares (`trainables.model.diagnostics`) with those that follow from its scores
alone: SumMargLH pulls each positive in proportion to e^s, LSEPair to e^-s, JointLH to
1/|P| - softmax(s) where that is positive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ablate.learn.report.document import (
    Block,
    Section,
    Table,
    Text,
    Value,
    listing,
    number,
    plural,
    scalar,
    value,
)
from ablate.learn.report.figures import Figure, Row, Rows, row_plot
from ablate.learn.report.panels import Mark, Panels, Share, share_panels
from ablate.learn.results import CellResult, Results
from trainables.model.losses import LOSSES
from trainables.spec import Scalar

TOLERANCE = 0.01
"""Largest difference between a share of the pull and theory's that still counts as following it."""
RANKS = {
    "rank_1": "1st", "rank_2": "2nd", "rank_3": "3rd", "rank_4": "4th", "rank_last": "last",
}  # fmt: skip
GAP = "grad/prediction_gap"
ACROSS = 6
"""Temperatures of a loss that are drawn, evenly chosen with both ends."""
ROWS = 60
"""Cells drawn by source or truth: the best ranked. The table has them all."""
Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Group:
    """The finished trials of one loss at one temperature."""

    loss: str
    """Name of the loss, with its parameters where the study varies them."""
    temperature: float
    trials: tuple[Metrics, ...]

    def mean(self, key: str) -> float | None:
        """Mean over the trials that have the metric."""
        return _mean(self.trials, key)

    def ends(self, key: str) -> tuple[float, float] | None:
        """The lowest and highest trial."""
        found = [trial[key] for trial in self.trials if key in trial]
        return (min(found), max(found)) if found else None

    @property
    def gap(self) -> float | None:
        """The largest gap to theory of any trial; None where no query had several positives."""
        ends = self.ends(GAP)
        return None if ends is None else ends[1]


def groups(results: Results) -> tuple[Group, ...]:
    """Losses in order of appearance, each with its temperatures rising."""
    found: dict[tuple[str, float], list[Metrics]] = {}
    varying = _varying(results)
    for trial in results.trials:
        if trial.counted and any(key.startswith("grad/") for key in trial.metrics):
            flat = trial.planned.flat
            place = _name(flat, varying), float(flat["loss.temperature"] or 0.0)
            found.setdefault(place, []).append(trial.metrics)
    order = list(dict.fromkeys(loss for loss, _ in found))
    places = sorted(found, key=lambda place: (order.index(place[0]), place[1]))
    return tuple(Group(*place, tuple(found[place])) for place in places)


def gradients(results: Results) -> Section:
    """Shares by rank, source and truth; empty when no trial logged them."""
    found = groups(results)
    several = [group for group in found if group.gap is not None]
    blocks: list[Block] = []
    if several:
        blocks += [Text(_introduction(found)), Text(_check(several)), by_rank(several)]
        blocks += [Text(words) for words in (_sharpening(several),) if words]
        blocks.append(_rank_table(several))
    blocks += _origins(results)
    if found:
        blocks.append(_negatives_table(found))
    return Section("gradients", "Where the gradient goes", tuple(blocks))


def by_rank(several: Sequence[Group]) -> Figure:
    """Bars: the share of the pull that each positive gets by its rank. Diamonds: theory."""
    ranks = [rank for rank in RANKS if any(_holds(group, rank) for group in several)]
    rows: dict[str, list[Share]] = {}
    for loss in dict.fromkeys(group.loss for group in several):
        own = spread([group for group in several if group.loss == loss], ACROSS)
        rows[loss] = [
            Share(f"τ {scalar(group.temperature)}", tuple(_mark(group, rank) for rank in ranks))
            for group in own
        ]
    caption = (
        "Share of a query's pull that each of its positives gets, by the rank of its score among "
        "those that the loss reads (last: the weakest, whatever its rank); last quarter of "
        "training. Of a loss that reads several, queries with several. Bars: practice, from the "
        "gradients; whiskers: lowest and highest trial. Diamonds: theory, from "
        "the scores alone."
    )
    label = f"Shares of the pull by score rank for {listing(list(rows))}, beside theory."
    return share_panels("gradients", caption, label, Panels(rows))


def _mark(group: Group, rank: str) -> Mark:
    low, high = group.ends(f"grad/pull_{rank}") or (0.0, 0.0)
    practice = group.mean(f"grad/pull_{rank}") or 0.0
    return Mark(RANKS[rank], practice, low, high, group.mean(f"grad/predicted_{rank}"))


def _holds(group: Group, rank: str) -> bool:
    """Whether some query has a positive of this rank."""
    keys = (f"grad/pull_{rank}", f"grad/predicted_{rank}")
    return any((group.mean(key) or 0.0) > 0 for key in keys)


def spread(found: Sequence[Group], most: int) -> list[Group]:
    """`most` of the groups, evenly chosen, with the first and the last."""
    if len(found) <= most:
        return list(found)
    places = {round(place * (len(found) - 1) / (most - 1)) for place in range(most)}
    return [found[place] for place in sorted(places)]


def _introduction(found: Sequence[Group]) -> str:
    words = (
        "What a loss does to a query with several positives is decided by how it shares the pull "
        "among them. Theory, with scores s already divided by the temperature: `sum_marg_lh` pulls "
        "each positive in proportion to eˢ, so the strongest most; `lse_pair` to e⁻ˢ, so the "
        "weakest most; `joint_lh` to 1/m − P(s) of its m positives, and pushes down one whose "
        "softmax P(s) is above 1/m."
    )
    alone = [group.loss for group in found if LOSSES[group.loss.split()[0]].reads != "all"]
    if alone:
        names = listing([f"`{loss}`" for loss in dict.fromkeys(alone)])
        verb = "reads" if len(set(alone)) == 1 else "read"
        words += f" {names} {verb} one positive per query, which takes the whole pull."
    return words


def _check(several: Sequence[Group]) -> str:
    """Whether practice follows theory, with the largest gap."""
    trials = sum(len(group.trials) for group in several)
    off = [group for group in several if (group.gap or 0.0) > TOLERANCE]
    largest = max(group.gap or 0.0 for group in several)
    size = f"{largest:.1g}"
    if not off:
        return (
            f"**Practice follows theory** in all {plural(trials, 'trial')}: a positive's share "
            f"differs from the predicted one by at most {size} on average over queries (tolerance "
            f"{TOLERANCE:g})."
        )
    names = listing([f"`{group.loss}` at {scalar(group.temperature)}" for group in off])
    return (
        f"**Practice leaves theory** for {names}: a positive's share differs from the predicted "
        f"one by up to {size} on average over queries (tolerance {TOLERANCE:g}). Low precision or "
        "saturated scores can do that; do not explain these cells' results by the theory."
    )


def _sharpening(drawn: Sequence[Group]) -> str | None:
    """What the temperature did to the favoured positive of each loss."""
    parts = []
    for loss in dict.fromkeys(group.loss for group in drawn):
        own = [group for group in drawn if group.loss == loss]
        low, high = own[0], own[-1]
        alone = LOSSES[loss.split()[0]].reads != "all"
        if low.temperature == high.temperature or alone:
            continue
        rank = max(RANKS, key=lambda name: low.mean(f"grad/pull_{name}") or 0.0)
        shares = [group.mean(f"grad/pull_{rank}") or 0.0 for group in (low, high)]
        parts.append(
            f"`{loss}` gives its {_favoured(rank)} positive {shares[0]:.0%} at "
            f"{scalar(low.temperature)} and {shares[1]:.0%} at {scalar(high.temperature)}"
        )
    if not parts:
        return None
    return f"Temperature: {'; '.join(parts)}. Training moves the scores too, so this is not forced."


def _favoured(rank: str) -> str:
    return {"rank_1": "strongest", "rank_last": "weakest"}.get(rank, RANKS[rank])


def _rank_table(several: Sequence[Group]) -> Table:
    columns = (
        "Loss", "Temperature", "Trials", "Strongest", "Strongest, theory", "Weakest",
        "Weakest, theory", "Positives that share", "Pushed down", "Largest gap", "Follows theory",
    )  # fmt: skip
    keys = (
        "grad/pull_rank_1", "grad/predicted_rank_1", "grad/pull_rank_last",
        "grad/predicted_rank_last",
    )  # fmt: skip
    rows = tuple(
        (
            value(group.loss),
            value(scalar(group.temperature), group.temperature),
            value(len(group.trials)),
            *(_number(group.mean(key)) for key in keys),
            _number(group.mean("grad/effective_positives"), 2),
            _number(group.mean("grad/positives_down")),
            value(f"{group.gap:.1g}", group.gap),
            value("yes" if (group.gap or 0.0) <= TOLERANCE else "no"),
        )
        for group in several
    )
    caption = (
        "Shares of a query's pull for its strongest and weakest positive; how many positives share "
        "it (exp of the entropy); and the share of the gradient on positives that pushes them down"
    )
    return Table(caption, columns, rows, frozenset(columns) - {"Loss", "Follows theory"})


@dataclass(frozen=True)
class _Origin:
    """A kind of positive whose share of the pull is told beside its share of the positives."""

    name: str
    title: str
    pull: str
    positives: str


ORIGINS = (
    _Origin("machine", "machine positives", "grad/pull_machine", "grad/positives_machine"),
    _Origin("wrong", "positives known to be wrong", "grad/pull_wrong", "grad/positives_wrong"),
)


def _origins(results: Results) -> list[Block]:
    """By label source and by truth, where some cell has both kinds."""
    blocks: list[Block] = []
    for origin in ORIGINS:
        cells = [cell for cell in results.cells if _mixed(cell, origin)]
        if cells:
            blocks += [_origin_figure(cells, origin), _origin_table(cells, origin)]
    return blocks


def _mixed(cell: CellResult, origin: _Origin) -> bool:
    share = _mean(_metrics(cell), origin.positives)
    return share is not None and 0 < share < 1 and _mean(_metrics(cell), origin.pull) is not None


def _origin_figure(cells: Sequence[CellResult], origin: _Origin) -> Figure:
    rows = []
    for cell in cells[:ROWS]:
        trials = _metrics(cell)
        pulls = [trial[origin.pull] for trial in trials if origin.pull in trial]
        pull, even = fmean(pulls), _mean(trials, origin.positives) or 0.0
        note = f"{number(pull)} of {number(even)}"
        rows.append(Row(cell.name, pull, min(pulls), max(pulls), note, expected=even))
    cut = f" The first {ROWS} cells of the ranking." if len(cells) > ROWS else ""
    caption = (
        f"Share of all pull that {origin.title} get (dot, with the lowest and highest trial), and "
        f"their share of the positives (diamond), which an even split would give them. Right of "
        f"the diamond: the loss follows them more than the others.{cut}"
    )
    return row_plot(
        f"pull-{origin.name}", caption, caption, Rows(tuple(rows), f"share of {origin.title}")
    )


def _origin_table(cells: Sequence[CellResult], origin: _Origin) -> Table:
    columns = ("Cell", "Share of pull", "Share of positives", "Pull per positive")
    rows = []
    for cell in cells:
        pull, even = (_mean(_metrics(cell), key) for key in (origin.pull, origin.positives))
        ratio = None if pull is None or not even else pull / even
        rows.append((value(cell.name), _number(pull), _number(even), _number(ratio, 2)))
    caption = f"The {origin.title}: 1 pull per positive is an even split"
    return Table(caption, columns, tuple(rows), frozenset(columns[1:]))


def _negatives_table(found: Sequence[Group]) -> Table:
    """What is pushed down, and what of it is known to be positive."""
    keys = {
        "Push on hard negatives": "grad/push_hard",
        "Negatives that share": "grad/effective_negatives",
        "Push on known positives": "grad/push_known",
        "Negatives known positive": "grad/negatives_known",
    }
    columns = ("Loss", "Temperature", *keys)
    rows = tuple(
        (
            value(group.loss),
            value(scalar(group.temperature), group.temperature),
            *(_number(group.mean(key)) for key in keys.values()),
        )
        for group in found
    )
    caption = (
        "The push on negatives: its share on hard negatives, how many negatives share it, and the "
        "share that known positives get, or would get if they were not masked, beside their share "
        "of the negatives"
    )
    return Table(caption, columns, rows, frozenset(columns[1:]))


def _varying(results: Results) -> list[str]:
    """The parameters of losses that take several values in the study."""
    found: dict[str, set[Scalar]] = {}
    for trial in results.trials:
        for key, setting in trial.planned.flat.items():
            if key.startswith("loss.params."):
                found.setdefault(key, set()).add(setting)
    return [key for key, settings in found.items() if len(settings) > 1]


def _name(flat: Mapping[str, Scalar], varying: Iterable[str]) -> str:
    own = [f"{key.rpartition('.')[2]}={scalar(flat[key])}" for key in varying if key in flat]
    return " ".join([str(flat["loss.name"]), *own])


def _metrics(cell: CellResult) -> list[Metrics]:
    return [trial.metrics for trial in cell.counted]


def _mean(trials: Sequence[Metrics], key: str) -> float | None:
    found = [trial[key] for trial in trials if key in trial]
    return fmean(found) if found else None


def _number(amount: float | None, digits: int = 3) -> Value:
    return value(number(amount, digits), amount)
