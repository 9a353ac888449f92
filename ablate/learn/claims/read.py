"""Claims from YAML: a preset's name or a file's path -> claims, or every mistake at once.

claims:
  - id: C7
    statement: Curriculum beats union.
    source: arXiv 2504.05220
    contrasts:
      - left: {data.mixing: curriculum}
        right: {data.mixing: union}
        where: {data.human_fraction: 0.2}      # a value, a list, or {above: 0, below: 1}
        metric: "*/test/mrr_at_10"             # all test sets; judges and thresholds need their ":"
        expects: greater                       # greater, less, equal or no_worse
        # margin: 0.005                        # for equal and no_worse
        # versus: {data.human_fraction: 1.0}   # for an interaction
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from ablate.learn.claims.values import (
    EXPECTS,
    WITH_MARGIN,
    Between,
    Claim,
    Contrast,
    OneOf,
    Selector,
)
from ablate.plan.document import Entry, read_document
from trainables.errors import InvalidInput, Problem, nearest, unknown
from trainables.evaluation.metrics import parse_metric
from trainables.spec import is_key, text_number, unknown_key

SUFFIX = ".claims.yaml"
DEFAULT = "paper"
CLAIM_KEYS = ("id", "statement", "source", "contrasts")
CONTRAST_KEYS = ("left", "right", "where", "versus", "metric", "expects", "margin")


def claim_presets() -> tuple[str, ...]:
    """The names of the claims that are installed with `ablate`, sorted."""
    folder = files("ablate.learn") / "templates"
    names = [file.name for file in folder.iterdir() if file.name.endswith(SUFFIX)]
    return tuple(sorted(name.removesuffix(SUFFIX) for name in names))


def find_claims(study: str, given: str | None = None) -> tuple[Claim, ...]:
    """The claims for a study's name or path: those `given` (a preset or a file); or else those of
    the file NAME.claims.yaml beside NAME.yaml; or else those of the papers.

    Raises InvalidInput as `load_claims` does.
    """
    if given is not None:
        return load_claims(given)
    path = Path(study)
    beside = path.with_name(f"{path.stem}{SUFFIX}")
    return load_claims(beside if path.is_file() and beside.is_file() else DEFAULT)


def load_claims(source: str | Path) -> tuple[Claim, ...]:
    """The claims of a preset by name, or of a YAML file by path.

    Raises InvalidInput when there is neither, and with every mistake of the file: place, key,
    rule, value and the nearest that would be right.
    """
    text, place = _text(source)
    document, problems = read_document(text, place)
    reader = _Reader(problems)
    claims = reader.claims(Entry(document.value, document))
    if problems:
        raise InvalidInput(problems)
    return claims


def _text(source: str | Path) -> tuple[str, str]:
    name = str(source)
    if name in claim_presets():
        file = files("ablate.learn") / "templates" / f"{name}{SUFFIX}"
        return file.read_text(encoding="utf-8"), f"{name}{SUFFIX}"
    path = Path(source)
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8-sig"), name
        folder = "is a folder, " if path.is_dir() else "is "
    except UnicodeDecodeError as error:
        rule = f"is not UTF-8 text: byte {error.start} cannot be read"
        raise InvalidInput([Problem("claims", rule, name)]) from None
    except OSError as error:
        rule = f"cannot be read: {error.strerror}"
        raise InvalidInput([Problem("claims", rule, name)]) from None
    known = claim_presets()
    rule = f"{folder}neither a preset of claims nor a file; presets: {', '.join(known)}"
    raise InvalidInput([Problem("claims", rule, name, nearest(name, known))])


class _Reader:
    """Reads entries and notes what is wrong with them."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems

    def claims(self, root: Entry) -> tuple[Claim, ...]:
        blocks = self._mapping(root, "claims", ("claims",), ("claims",))
        found = [self._claim(entry, index) for index, entry in enumerate(self._list(blocks))]
        first: dict[str, int] = {}
        for index, claim in enumerate(found):
            if claim.id in first:
                place = blocks["claims"].inner(index).place("id")
                rule = f"is the id of claims[{first[claim.id]}] already"
                self._wrong(f"claims[{index}].id", rule, claim.id, None, place)
            first.setdefault(claim.id, index)
        return tuple(found)

    def _claim(self, entry: Entry, index: int) -> Claim:
        key = f"claims[{index}]"
        fields = self._mapping(entry, key, CLAIM_KEYS, CLAIM_KEYS)
        texts = [self._name(fields, name, key) for name in ("id", "statement", "source")]
        listed = self._list(fields, "contrasts", f"{key}.contrasts")
        contrasts = [
            self._contrast(inner, f"{key}.contrasts[{place}]") for place, inner in enumerate(listed)
        ]
        return Claim(texts[0], texts[1], texts[2], tuple(contrasts))

    def _contrast(self, entry: Entry, key: str) -> Contrast:
        fields = self._mapping(entry, key, CONTRAST_KEYS, ("left", "right", "metric", "expects"))
        selectors = {
            name: self._selector(fields[name], f"{key}.{name}")
            for name in ("left", "right", "where", "versus")
            if name in fields
        }
        expects = self._name(fields, "expects", key)
        if expects and expects not in EXPECTS:
            self.problems.append(
                unknown(f"{key}.expects", expects, EXPECTS, fields["expects"].place())
            )
        return Contrast(
            left=selectors.get("left", {}),
            right=selectors.get("right", {}),
            metric=self._metric(fields, key),
            expects=expects if expects in EXPECTS else "greater",
            margin=self._margin(fields, key, expects),
            where=selectors.get("where", {}),
            versus=selectors.get("versus"),
        )

    def _metric(self, fields: dict[str, Entry], key: str) -> str:
        """A metric key with a named metric at its end; `*` may stand in the reference."""
        metric = self._name(fields, "metric", key)
        reference, _, name = metric.rpartition("/")
        if not metric:
            return metric
        if not reference:
            rule = "must be a metric key such as nq/test/mrr_at_10 or */test/mrr_at_10"
            self._wrong(f"{key}.metric", rule, metric, f"*/test/{name}", fields["metric"].place())
            return metric
        try:
            parse_metric(name)
        except InvalidInput as error:
            place = fields["metric"].place()
            for problem in error.problems:
                self._wrong(f"{key}.metric", problem.rule, metric, problem.nearest, place)
        return metric

    def _margin(self, fields: dict[str, Entry], key: str, expects: str) -> float:
        """The margin, which `equal` and `no_worse` need and the others do not have."""
        if expects in WITH_MARGIN and "margin" not in fields:
            place = fields["expects"].place()
            self._wrong(f"{key}.margin", f"is missing; {expects} needs it", None, None, place)
        if "margin" not in fields:
            return 0.0
        value, place = fields["margin"].value, fields["margin"].place()
        if expects in EXPECTS and expects not in WITH_MARGIN:
            rule = f"belongs to {' and '.join(WITH_MARGIN)}, not to {expects}"
            self._wrong(f"{key}.margin", rule, value, None, place)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            self._wrong(f"{key}.margin", "must be a number above 0", value, None, place)
            return 0.0
        return float(value)

    def _selector(self, entry: Entry, key: str) -> Selector:
        """Conditions by key of a trial; an empty mapping means any cell."""
        if not isinstance(entry.value, dict):
            self._wrong(key, "must map keys of a trial to values", entry.value, None, entry.place())
            return {}
        found = {}
        for name, inner in entry.entries().items():
            if not is_key(name) or name == "seed":
                problem = unknown_key(name)
                self._wrong(f"{key}.{name}", problem.rule, None, problem.nearest, inner.place())
            found[name] = self._condition(inner, f"{key}.{name}")
        return found

    def _condition(self, entry: Entry, key: str) -> OneOf | Between:
        if isinstance(entry.value, dict):
            ends = self._mapping(entry, key, ("above", "below"), ())
            numbers = {name: self._number(end, f"{key}.{name}") for name, end in ends.items()}
            if not ends:
                self._wrong(key, "needs above or below", None, None, entry.place())
            return Between(numbers.get("above"), numbers.get("below"))
        values: list[Any] = entry.value if isinstance(entry.value, list) else [entry.value]
        for value in values:
            as_text = text_number(value)
            if as_text is not None:
                self._wrong(key, as_text.rule, value, as_text.nearest, entry.place())
            elif value is not None and not isinstance(value, (str, int, float, bool)):
                self._wrong(key, "must be a value or a list of values", value, None, entry.place())
        if not values:
            self._wrong(key, "must not be empty", None, None, entry.place())
        return OneOf(tuple(values))

    def _number(self, entry: Entry, key: str) -> float | None:
        if isinstance(entry.value, (int, float)) and not isinstance(entry.value, bool):
            return float(entry.value)
        self._wrong(key, "must be a number", entry.value, None, entry.place())
        return None

    def _name(self, fields: dict[str, Entry], name: str, key: str) -> str:
        """A text field; empty when missing, which has been noted already."""
        if name not in fields:
            return ""
        value = fields[name].value
        if not isinstance(value, str) or not value.strip():
            self._wrong(f"{key}.{name}", "must be text", value, None, fields[name].place())
            return ""
        return value.strip()

    def _list(
        self, fields: dict[str, Entry], name: str = "claims", key: str = "claims"
    ) -> list[Entry]:
        if name not in fields:
            return []
        entry = fields[name]
        if not isinstance(entry.value, list) or not entry.value:
            self._wrong(key, "must be a list with at least one item", None, None, entry.place())
            return []
        return [entry.inner(index) for index in range(len(entry.value))]

    def _mapping(
        self, entry: Entry, key: str, known: tuple[str, ...], needed: tuple[str, ...]
    ) -> dict[str, Entry]:
        """The known fields of a mapping, after noting foreign and missing ones."""
        if not isinstance(entry.value, dict):
            rule = f"must be a mapping with {', '.join(needed or known)}"
            self._wrong(key, rule, None, None, entry.place())
            return {}
        fields = entry.entries()
        for name in fields:
            if name not in known:
                rule = f"is not known here; known: {', '.join(known)}"
                self._wrong(f"{key}.{name}", rule, None, nearest(name, known), entry.place(name))
        for name in needed:
            if name not in fields:
                self._wrong(f"{key}.{name}", "is missing", None, None, entry.place())
        return {name: field for name, field in fields.items() if name in known}

    def _wrong(self, key: str, rule: str, value: object, near: str | None, place: str) -> None:
        self.problems.append(Problem(key, rule, value, near, place))
