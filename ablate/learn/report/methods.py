"""The design in a table's words, the methods paragraph, and the command that repeats it all."""

from __future__ import annotations

import shlex
from collections.abc import Container, Mapping

from ablate.learn.report.document import Table, listing, plural, scalar, value
from ablate.learn.results import ALPHA, Results, metric_title
from trainables.spec import Scalar

METHOD = (
    "Differences are paired by query; their errors hold the variance over seeds and over queries "
    "(Behrens-Fisher). Few seeds cannot tell whether one cell is noisier than another, so both "
    "readings, all cells alike and each with a variance of its own, are weighed by how well they "
    "fit the seeds (after Smyth 2004). No error is taken to be smaller than the queries alone make "
    "it. p-values and intervals are corrected for the whole family by step-down max-T (Westfall "
    "and Young 1993)."
)


def design(results: Results) -> Table:
    """What was compared, tuned, fixed and repeated, key by key."""
    study = results.study
    rows = [("compared", key, _values(study.listed(key))) for key in study.compared]
    rows += [("tuned", key, _space(space.to_yaml())) for key, space in study.tune.items()]
    if study.adaptive:
        draws = plural(study.budget.draws_per_cell or 0, "draw")
        words = f"adaptive: {draws} per cell, of which the first {results.shared_draws} are shared"
        rows.append(("searched", "budget.search", words))
    rows += [("repeated", "seed", _values(study.seeds))]
    rows += [("fixed", key, scalar(fixed)) for key, fixed in study.fixed.items()]
    if study.select is not None:
        rows.append(("selected by", study.select.key, "the greatest mean"))
    if study.watch is not None:
        rows.append(("watched", study.watch.label, f"every {plural(study.watch.every, 'step')}"))
    rows += [("evaluated on", ref.label, str(ref)) for ref in study.evaluate]
    content = tuple((value(role), value(key), value(words)) for role, key, words in rows)
    caption = f"{plural(len(results.cells), 'cell')}, {plural(len(study.seeds), 'seed')} each."
    return Table(caption, ("Role", "Key", "Value"), content)


def methods(results: Results, shown: Container[str]) -> tuple[str, ...]:
    """A methods section to copy into a paper and to correct there.

    `shown` holds the anchors of the report's sections: a test is described where it was made.
    """
    statistics = " ".join([_statistics(results), *_further_tests(results, shown)])
    return (_training(results), _choosing(results), statistics, _works(results))


def _training(results: Results) -> str:
    study = results.study
    flat: Mapping[str, Scalar] = results.trials[0].planned.flat if results.trials else {}
    length = f"{scalar(flat.get('optim.steps'))} steps"
    if flat.get("optim.steps") is None:
        length = f"{scalar(flat.get('optim.epochs'))} epochs"
    masked = ""
    if results.settings("data.mask_known_positives") == (True,):
        masked = "; a known positive of a query was never its negative"
    compared = "We trained one configuration. It"
    if study.compared:
        keys = listing([f"`{key}`" for key in study.compared])
        count = plural(len(results.cells), "configuration")
        compared = f"We compared {count}: combinations of {keys}. Each"
    return (
        f"{compared} started from the encoder "
        f"`{_of(results, 'encoder.backbone')}` and was trained on `{_of(results, 'data.train')}` "
        f"for {length} of {_of(results, 'optim.batch_size')} queries with AdamW, under "
        f"{plural(len(study.seeds), 'seed')}. Negatives were the other queries' passages and "
        f"mined hard ones, {_of(results, 'data.hard_negatives')} per query{masked}."
    )


def _of(results: Results, key: str) -> str:
    return listing([scalar(setting) for setting in results.settings(key)])


def _choosing(results: Results) -> str:
    study = results.study
    tests = listing(list(results.test_refs) or ["no test split"])
    if not study.tune or study.select is None:
        return f"Nothing was tuned. Scores are on {tests}."
    draws = plural(len({trial.planned.draw for trial in results.trials}), "draw")
    made = f"{draws}, the same for every configuration"
    if study.adaptive:
        made = (
            f"{draws} for every configuration. The first {results.shared_draws} were the same for "
            "all; each further one was chosen by the configuration's own scores on dev so far, by "
            "a tree-structured Parzen estimator (Bergstra et al. 2011; Optuna)"
        )
    return (
        f"Tuned: {listing([f'`{key}`' for key in study.tune])}; {made}. The draw that was best "
        f"on {study.select.key} was kept. Kept settings were frozen before {tests} was scored."
    )


def _statistics(results: Results) -> str:
    family = (
        "all pairs of configurations"
        if results.family.complete
        else "the configuration best on dev against each other one"
    )
    return (
        f"Scores are per query, and a query that a run misses scores 0. {METHOD} The family is "
        f"{family} on {metric_title(results.primary)}, at a family-wise error rate of "
        f"{ALPHA * 100:g} %. Absence of a difference is never inferred from a failed test."
    )


def _further_tests(results: Results, shown: Container[str]) -> list[str]:
    """A sentence or two on each kind of test beside the pairwise differences."""
    found = []
    margin = None if results.study.select is None else results.study.select.equal_within
    if "equality" in shown and margin is not None:
        found.append(
            f"Two configurations are called equal when two one-sided tests (Schuirmann 1987) put "
            f"their difference within ± {margin:g}, a margin declared with the design; p-values "
            "are corrected over the same pairs (Holm)."
        )
    if "claims" in shown:
        found.append(
            "A claim is one or more contrasts of configurations that are paired all else equal; it "
            "holds when every contrast points its way and fails when any points the other. The "
            f"contrasts of all claims are one family (Holm, {ALPHA * 100:g} %), and what is not "
            "decided is called undecided."
        )
    if "slices" in shown:
        found.append(
            "Differences within groups of queries, by lexical overlap, number of positives and "
            "length, are tested in the same way on the group's queries and corrected together "
            "(Holm); the groups were not chosen by the scores."
        )
    return found


def _works(results: Results) -> str:
    losses = set(map(str, results.settings("loss.name")))
    words = "The losses follow Wang et al., Training Dense Retrievers with Multiple Positive "
    words += "Passages (KDD 2026, arXiv 2602.12727)"
    if losses & {"sum_marg_lh", "joint_lh", "rand1_lh"}:
        words += (
            " and Utility-Focused LLM Annotation for Retrieval and RAG (EMNLP 2025, arXiv "
            "2504.05220)"
        )
    return f"{words}."


def reproduce(results: Results) -> tuple[str, ...]:
    """The command lines that run the study and write this report again."""
    name = shlex.quote(results.study.name)
    return (f"ablate run {name}", f"ablate report {name}")


def _values(values: tuple[Scalar, ...]) -> str:
    return ", ".join(scalar(one) for one in values)


def _space(written: object) -> str:
    """A space as YAML writes it, in one line."""
    if isinstance(written, list):
        return ", ".join(scalar(one) for one in written)
    if isinstance(written, dict):
        return "; ".join(f"{kind} {_space(inside)}" for kind, inside in written.items())
    return scalar(written)
