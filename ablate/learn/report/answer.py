"""The answer in a few sentences: which cells lead, which differences are real, and by how much."""

from __future__ import annotations

from collections.abc import Sequence

from ablate.learn.report.document import (
    difference,
    interval,
    listing,
    number,
    plural,
    probability,
    signed,
)
from ablate.learn.results import CellResult, Results, metric_title, split_key
from ablate.learn.stats import Comparison

NOT_EQUAL = "That does not show them to be equal."


def answer(results: Results) -> tuple[str, ...]:
    """Paragraphs that answer the question, no more certain than the numbers are."""
    if not results.scored:
        return (_nothing_yet(results),)
    paragraphs = [_ranking(results)]
    paragraphs += [
        words for words in (_chosen(results), _gain(results), _caution(results)) if words
    ]
    return tuple(paragraphs)


def _nothing_yet(results: Results) -> str:
    failed = sum(trial.state == "failed" for trial in results.trials)
    if failed:
        return f"**No answer.** No cell has a score, and {plural(failed, 'trial')} failed."
    return "**No answer yet.** No cell has a score."


def _ranking(results: Results) -> str:
    lead = results.reference or results.scored[0]
    score = results.primary_of(lead)
    ref, _ = split_key(results.primary)
    head = (
        f"`{lead.name}` scores {number(score.mean)} {metric_title(results.primary)} on {ref} "
        f"(95 % interval {interval(score.low, score.high)})"
    )
    against = list(results.against.values())
    if not against:
        return f"{head}. It is the only cell with scores, so there is nothing to compare it with."
    place = results.scored.index(lead) + 1
    ranks = "ranks first" if place == 1 else f"was best on dev; it ranks {place} on this metric"
    worse = [pair for pair in against if pair.different and pair.effect > 0]
    better = [pair for pair in against if pair.different and pair.effect <= 0]
    undecided = [pair for pair in against if not pair.different]
    if not undecided and not better:
        return f"**One cell is best.** {head}. {_beaten(worse, 'every other cell')}"
    if not worse and not better:
        return f"**Undecided.** {head} and {ranks}, but {_untold(undecided)}"
    parts = [f"**Partly decided.** {head} and {ranks}."]
    if better:
        farthest = min(better, key=lambda pair: pair.effect)
        parts.append(
            f"{plural(len(better), 'cell')} beat it, most of all `{farthest.b}` "
            f"(by {_effect(farthest.reversed())})."
        )
    if undecided:
        parts.append(f"It cannot be told from {_named(undecided)}.")
    if worse:
        parts.append(_beaten(worse, plural(len(worse), "cell")))
    return " ".join(parts)


def _chosen(results: Results) -> str | None:
    """The cell that dev chooses. To be first of many on test is partly luck of its queries."""
    select = results.study.select
    if select is None or not results.tested or not results.family.complete:
        return None
    known = [cell for cell in results.scored if select.key in cell.metrics]
    if len(known) < 2:
        return None
    best = max(known, key=lambda cell: cell.metrics[select.key].mean)
    if best is results.scored[0]:
        return f"Dev chooses `{best.name}` too, so its score was not picked on test."
    score = results.primary_of(best)
    return (
        f"Dev chooses `{best.name}`, which scores {number(score.mean)} "
        f"{interval(score.low, score.high)} and ranks {results.scored.index(best) + 1}. Its score "
        f"was not picked on test; that of the first rank is the highest of {len(results.scored)}."
    )


def _untold(undecided: Sequence[Comparison]) -> str:
    if len(undecided) == 1:
        return f"it cannot be told from {_named(undecided)}. {NOT_EQUAL}"
    widest = max(undecided, key=lambda pair: pair.effect)
    return (
        f"it cannot be told from any of the other {plural(len(undecided), 'cell')}: even over "
        f"`{widest.b}` its lead is {_effect(widest)}. {NOT_EQUAL}"
    )


def _named(pairs: Sequence[Comparison]) -> str:
    return listing([f"`{pair.b}` ({_effect(pair)})" for pair in pairs], limit=4)


def _beaten(worse: Sequence[Comparison], whom: str) -> str:
    nearest = min(worse, key=lambda pair: pair.effect)
    by = f"{_effect(nearest)}, corrected p {probability(nearest.p_adjusted)}"
    if len(worse) == 1:
        return f"It is better than `{nearest.b}`, by {by}."
    farthest = max(worse, key=lambda pair: pair.effect)
    return (
        f"It is better than {whom}: by {by}, over the nearest (`{nearest.b}`) and by "
        f"{signed(farthest.effect)} over the farthest (`{farthest.b}`)."
    )


def _effect(pair: Comparison) -> str:
    return difference(pair.effect, pair.low_family, pair.high_family)


def _gain(results: Results) -> str | None:
    """How the cells stand to the untrained encoder, and the leading cell to BM25."""
    name = results.untrained
    parts = []
    gained = [(cell, cell.gains[name]) for cell in results.scored if name and name in cell.gains]
    if gained:
        above = [(cell, gain) for cell, gain in gained if gain.low > 0]
        ends = sorted(gain.mean for _, gain in gained)
        many = len(gained)
        if len(above) == many:
            span = signed(ends[0]) if many == 1 else f"{signed(ends[0])} to {signed(ends[-1])}"
            whom = "The cell gains" if many == 1 else f"All {plural(many, 'cell')} gain"
            least = min(gain.low for _, gain in gained)
            parts.append(
                f"{whom} over the untrained encoder: {span} (lowest end of an interval "
                f"{signed(least)})."
            )
        else:
            rest = listing([f"`{cell.name}`" for cell, gain in gained if gain.low <= 0])
            parts.append(
                f"{len(above)} of {plural(many, 'cell')} gain over the untrained encoder, each "
                f"judged by itself; not shown for {rest}."
            )
    parts += _over_bm25(results.scored[0])
    return " ".join(parts) or None


def _over_bm25(first: CellResult) -> list[str]:
    gain = first.gains.get("bm25")
    if gain is None:
        return []
    return [f"Against BM25 the leading cell is at {difference(gain.mean, gain.low, gain.high)}."]


def _caution(results: Results) -> str | None:
    """What a reader must know before quoting the first sentence."""
    words = []
    scopes = {results.primary_of(cell).scope for cell in results.scored}
    if "checkpoints" in scopes:
        words.append(
            "With one seed per cell this compares the trained encoders, not the methods: another "
            "seed may change the order."
        )
    elif "borrowed" in scopes:
        words.append(
            "Some cells have one seed; how much training noise they hold is taken from the others."
        )
    if not results.tested:
        words.append(
            "The ranking is on a dev split, which also chose the settings: expect less on new "
            "queries."
        )
    missing = [trial for trial in results.trials if trial.state != "finished"]
    if missing:
        failed = sum(trial.state == "failed" for trial in missing)
        stopped = sum(trial.state == "stopped" for trial in missing)
        there = len(results.trials) - len(missing)
        words.append(
            f"The ranking holds what is there: {there} of {plural(len(results.trials), 'trial')}"
            f"{f'; {failed} failed' if failed else ''}"
            f"{f'; {stopped} stopped early' if stopped else ''}."
        )
    return " ".join(words) or None
