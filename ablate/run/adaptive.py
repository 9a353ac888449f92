"""The Optuna door: what has been tried in a cell -> what to try next.

Every call makes an Optuna study of its own, tells it all that is known and asks it once, with a
seed that the caller derives from what is searched. The answer therefore follows from the arguments
alone: it is the same in every process, and after a crash it is found again rather than restored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ablate.plan.space import Choice, Integer, LogUniform, Random
from trainables.spec import Scalar


@dataclass(frozen=True)
class Told:
    """A draw that was tried, with its score, higher being better.

    Without a score it is `running` still, or it ended as worse than any that has one.
    """

    values: Mapping[str, Scalar]
    score: float | None
    running: bool = False


def suggest(spaces: Mapping[str, Random], told: Iterable[Told], seed: int) -> dict[str, Scalar]:
    """The next draw from `spaces`, by a tree-structured Parzen estimator over all keys at once
    (Bergstra et al. 2011; Falkner et al. 2018), which keeps away from what is running.

    Numbers have the digits of a random draw. As long as no draw of `told` has a score, the next
    one is random.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(
        n_startup_trials=1, multivariate=True, constant_liar=True, seed=seed
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    asked = {key: _distribution(space) for key, space in spaces.items()}
    known = list(told)
    if any(one.score is not None for one in known):
        for one in known:
            study.add_trial(_trial(one, spaces, asked))
    found = study.ask(asked).params
    return {key: _value(space, found[key]) for key, space in spaces.items()}


def _trial(told: Told, spaces: Mapping[str, Random], asked: Mapping[str, Any]) -> Any:
    """A draw that was tried as Optuna's: keys that did not act in it are left out."""
    import optuna

    state = optuna.trial.TrialState.COMPLETE
    if told.score is None:
        running, pruned = optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.PRUNED
        state = running if told.running else pruned
    own = [key for key in spaces if key in told.values]
    return optuna.trial.create_trial(
        state=state,
        value=told.score,
        params={key: _param(spaces[key], told.values[key]) for key in own},
        distributions={key: asked[key] for key in own},
    )


def _distribution(space: Random) -> Any:
    """A space as Optuna's. A choice is one of its values' places: Optuna takes 1 and true for
    equal."""
    from optuna import distributions

    if isinstance(space, Choice):
        return distributions.CategoricalDistribution(range(len(space.values)))
    if isinstance(space, Integer):
        return distributions.IntDistribution(space.low, space.high)
    return distributions.FloatDistribution(space.low, space.high, log=isinstance(space, LogUniform))


def _param(space: Random, value: Scalar) -> Any:
    if not isinstance(space, Choice):
        return value
    same = [isinstance(one, bool) == isinstance(value, bool) for one in space.values]
    return next(i for i, one in enumerate(space.values) if one == value and same[i])


def _value(space: Random, param: Any) -> Scalar:
    if isinstance(space, Choice):
        return space.values[int(param)]
    return int(param) if isinstance(space, Integer) else space.rounded(param)
