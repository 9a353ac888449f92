"""Threats to validity that this study's own design raises, each with what would remove it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from statistics import median

from ablate.learn.report.document import listing, number, plural, scalar, signed
from ablate.learn.results import Results, metric_title
from ablate.plan.overlaps import data_confounds

FEW_QUERIES = 100
MANY_QUERIES = 5000
FEW_SEEDS = 5
SMALL_CORPUS = 100_000
LEVELS, MOST = 3, 0.5
"""Values, or cells, from which on an end is worth a word; and the share of cells that keep one."""
BOUNDED = ("data.human_fraction", "data.noise")
"""Shares: their values are given by the question, not looked for."""


def threats(results: Results) -> tuple[str, ...]:
    """The threats that apply, the most general first."""
    found = (rule(results) for rule in _RULES)
    return tuple(words for words in found if words)


def _seeds(results: Results) -> str | None:
    seeds = {cell.name: results.primary_of(cell).seeds for cell in results.scored}
    fewest = min(seeds.values(), default=0)
    if fewest == 0 or fewest >= FEW_SEEDS:
        return None
    if fewest == 1 < max(seeds.values()):
        alone = listing([f"`{name}`" for name, count in seeds.items() if count == 1])
        return (
            f"**One seed in some cells.** {alone}: how much another training would differ is taken "
            "from the other cells. Finish their seeds."
        )
    if fewest == 1:
        return (
            "**One seed.** The noise of training is unknown, so no difference here can be laid to "
            "a method. Repeat with at least three seeds."
        )
    return (
        f"**{fewest} seeds.** The spread over seeds rests on {fewest} values per cell, too few to "
        "tell a noisy cell from a quiet one. The intervals allow for either and are wide where "
        "seeds rule; in simulations the stated error rate held with a cell up to three times as "
        "noisy as the others, within what 1,000 studies can tell. More seeds narrow them."
    )


def _queries(results: Results) -> str | None:
    if not results.scored:
        return None
    count = results.primary_of(results.scored[0]).queries
    if count < FEW_QUERIES:
        return (
            f"**Few queries.** With {plural(count, 'query')} one odd query moves a mean by up to "
            f"{1 / count:.3f}."
        )
    if count >= MANY_QUERIES:
        return (
            f"**Many queries.** With {plural(count, 'query')} differences too small to matter can "
            "be real. Look at the size of a difference before its p-value."
        )
    return None


def _resolution(results: Results) -> str | None:
    halves = [(pair.high_family - pair.low_family) / 2 for pair in results.comparisons]
    if not halves:
        return None
    return (
        f"**Resolution.** Half the width of a typical interval of a difference is "
        f"{number(median(halves))}: true differences smaller than that will mostly stay undecided "
        "here, and undecided does not mean equal."
    )


def _margin(results: Results) -> str | None:
    select = results.study.select
    margin = None if select is None else select.equal_within
    halves = [(pair.high - pair.low) / 2 for pair in results.comparisons]
    if margin is None or not halves or margin > median(halves):
        return None
    return (
        f"**A margin finer than the study.** Cells are equal within ± {margin:g}, but a typical "
        f"difference is known to ± {number(median(halves))} only: equality can hardly be shown "
        "here, even where it is true. More seeds or queries are needed, not a wider margin."
    )


def _one_rate(results: Results) -> str | None:
    if len(results.settings("loss.name")) < 2 or len(results.settings("optim.lr")) > 1:
        return None
    (rate,) = results.settings("optim.lr")
    return (
        f"**One learning rate for all losses** ({scalar(rate)}). Losses differ in the size of "
        "their gradients, and the shared rate may suit some better. Put `optim.lr` under `tune`, "
        "with the same number of draws for each."
    )


def _one_temperature(results: Results) -> str | None:
    if len(results.settings("loss.name")) < 2 or len(results.settings("loss.temperature")) > 1:
        return None
    (temperature,) = results.settings("loss.temperature")
    return (
        f"**One temperature for all losses** ({scalar(temperature)}). Which loss wins depends on "
        "it: at low temperature some losses follow their strongest positive, others their weakest. "
        "Compare or tune `loss.temperature`."
    )


def _negatives(results: Results) -> str | None:
    if any(group is not None for group in results.settings("data.group_size")):
        return (
            "**Unequal negatives.** In a group of fixed size positives displace hard negatives, so "
            "cells that read more positives see fewer negatives. Set `data.group_size` to null."
        )
    if len(results.settings("data.hard_negatives")) > 1:
        return (
            "**Unequal negatives.** Cells differ in `data.hard_negatives`; a difference between "
            "them is not only one of losses or labels."
        )
    return None


def _known_positives(results: Results) -> str | None:
    if False not in results.settings("data.mask_known_positives"):
        return None
    return (
        "**Positives among the negatives.** With `data.mask_known_positives: false` a known "
        "positive of another query counts as a negative."
    )


def _curriculum(results: Results) -> str | None:
    mixing = results.settings("data.mixing")
    if "curriculum" not in mixing or len(mixing) < 2:
        return None
    return (
        "**Curriculum against mixing.** A curriculum also changes the order of the labels and "
        "restarts the learning rate; its gain is not that of the human labels alone."
    )


def _human_in_machine(results: Results) -> str | None:
    machine = any(source is not None for source in results.settings("data.machine_labels"))
    if not machine or True not in results.settings("data.machine_human_positive"):
        return None
    if 0.0 not in results.settings("data.human_fraction"):
        return None
    return (
        "**Machine labels are not free of human ones.** The pool that the annotator judged may "
        "hold the human positive, so `data.human_fraction: 0` is not a study without humans. "
        "Compare with `data.machine_human_positive: false`."
    )


def _noise(results: Results) -> str | None:
    if all(not share for share in results.settings("data.noise")):
        return None
    return (
        "**Injected noise is simpler than an annotator's.** Wrong positives drawn at random lack "
        "the topical closeness of real mistakes."
    )


def _small_encoder(results: Results) -> str | None:
    layers = [count for count in results.settings("encoder.layers") if count is not None]
    if not layers:
        return None
    return (
        f"**A cut encoder** ({listing([scalar(count) for count in layers])} layers). Rankings of "
        "losses may not carry over to a full one."
    )


def _one_collection(results: Results) -> str | None:
    names = {label.rpartition("/")[0] for label in results.test_refs}
    if len(names) != 1:
        return None
    trained = [scalar(name) for name in results.settings("data.train")]
    inside = all(
        any(f"{name}/".startswith(f"{ref.collection}/") for ref in results.study.evaluate)
        for name in trained
    )
    words = ", and it is the one that was trained on" if inside else ""
    return (
        f"**One collection.** All scores are on {listing(sorted(names))}{words}. Rankings on "
        "other collections may differ."
    )


def _small_corpus(results: Results) -> str | None:
    sizes = {str(one["collection"]): int(one["passages"]) for one in results.data}
    small = [f"{name} ({size:,} passages)" for name, size in sizes.items() if size < SMALL_CORPUS]
    if not small:
        return None
    return (
        f"**A small corpus**: {listing(small)}. Scores are higher than on a full one and "
        "differences smaller; hard negatives are scarcer."
    )


def _several_metrics(results: Results) -> str | None:
    if len(results.metric_keys) < 2:
        return None
    return (
        f"**One metric decides.** Error rates are held for {metric_title(results.primary)} on "
        f"{results.primary.rpartition('/')[0]} alone. The other metrics are shown without a "
        "correction across them; do not pick the one that agrees."
    )


def _choice(results: Results) -> str | None:
    """Settings chosen on dev look better there than they are."""
    select = results.study.select
    if select is None or not results.study.tune:
        return None
    twin = f"{results.primary.rpartition('/')[0]}/{select.metric}"
    gaps = [
        cell.metrics[select.key].mean - cell.metrics[twin].mean
        for cell in results.scored
        if select.key in cell.metrics and twin in cell.metrics
    ]
    if not gaps:
        return None
    draws = len({trial.planned.draw for trial in results.cells[0].trials})
    return (
        f"**Chosen on dev.** Each cell's draw was the best of {draws} on {select.key}, which "
        f"flatters dev scores. Dev minus test is {signed(median(gaps))} at the median, which also "
        "holds how hard either's queries are. The ranking is of test scores, which chose nothing."
    )


def _range_ends(results: Results) -> str | None:
    """Ranges whose end is best, so that what lies beyond might be better still."""
    found = [*_compared_ends(results), *_tuned_ends(results)]
    if not found:
        return None
    return f"**At the end of a range.** {' '.join(found)} Values beyond may be better: widen it."


def _compared_ends(results: Results) -> Iterator[str]:
    for key in results.study.compared:
        values = _numbers(results.study.listed(key))
        best = results.scored[0].values.get(key) if results.scored else None
        if len(values) < LEVELS or key in BOUNDED or best not in (values[0], values[-1]):
            continue
        end = "least" if best == values[0] else "greatest"
        yield f"The first cell has the {end} `{key}` that was compared ({scalar(best)})."


def _tuned_ends(results: Results) -> Iterator[str]:
    for key in results.study.tune:
        values = _numbers(results.settings(key))
        kept = [cell.tuned[key] for cell in results.scored if key in cell.tuned]
        for end, place in (("least", 0), ("greatest", -1)):
            count = sum(value == values[place] for value in kept) if len(values) > 1 else 0
            if len(kept) >= LEVELS and count > MOST * len(kept):
                yield (
                    f"{count} of {plural(len(kept), 'cell')} kept the {end} `{key}` that was drawn "
                    f"({scalar(values[place])})."
                )


def _numbers(values: Iterable[object]) -> list[float]:
    found = {v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return sorted(found)


def _adaptive(results: Results) -> str | None:
    """Draws that follow the scores are no longer the same in every cell."""
    if not results.study.adaptive:
        return None
    return (
        f"**Adaptive draws.** Every cell had the same number of draws, but after the first "
        f"{results.shared_draws} each went its own way, after its own scores on dev: cells are not "
        "paired by draw, and the optimism of a choice is larger than resampling the queries shows. "
        "Random draws (`budget.search: random`) are the same in every cell."
    )


def _data(results: Results) -> str | None:
    """What the splits share or lack, as the plan says it too."""
    said = dict.fromkeys(
        confound.text
        for one in results.data
        if "audit" in one
        for confound in data_confounds(one["audit"])
    )
    return f"**The data.** {' '.join(said)}" if said else None


def _failures(results: Results) -> str | None:
    failed = [trial for trial in results.trials if trial.state == "failed"]
    if not failed:
        return None
    cells = list(dict.fromkeys(f"`{trial.cell}`" for trial in failed))
    return (
        f"**{plural(len(failed), 'failed trial')}**, in {listing(cells)}. Means are over what "
        "finished; when a method fails where it would have scored low, its mean is flattered."
    )


def _stopped(results: Results) -> str | None:
    """A trial that was stopped has no final score: what is censored, and where it bends a mean."""
    stopped = [trial for trial in results.trials if trial.state == "stopped"]
    if not stopped:
        return None
    said = (
        f"**{plural(len(stopped), 'trial')} stopped early.** Such a trial is a row without a final "
        "score; it counts in no mean and is chosen by nothing."
    )
    bent = [cell for cell in results.cells if any(t.state == "stopped" for t in cell.counted)]
    scored = [f"`{cell.name}`" for cell in bent if results.primary in cell.metrics]
    unscored = [f"`{cell.name}`" for cell in bent if results.primary not in cell.metrics]
    if scored:
        said += (
            f" The mean of {listing(scored)} is over the seeds that were not stopped, which were "
            "the better ones: it flatters the cell."
        )
    if unscored:
        said += f" Of {listing(unscored)} every seed was stopped or failed: no rank, not last rank."
    return said


def _reopened(results: Results) -> str | None:
    if len(results.openings) < 2:
        return None
    return (
        f"**The test was opened {len(results.openings)} times.** What was changed in between may "
        "have followed what was seen."
    )


_RULES: tuple[Callable[[Results], str | None], ...] = (
    _seeds,
    _queries,
    _resolution,
    _margin,
    _failures,
    _stopped,
    _one_rate,
    _one_temperature,
    _negatives,
    _known_positives,
    _curriculum,
    _human_in_machine,
    _noise,
    _choice,
    _range_ends,
    _adaptive,
    _reopened,
    _data,
    _several_metrics,
    _one_collection,
    _small_corpus,
    _small_encoder,
)
