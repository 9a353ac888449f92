"""Short trials that are timed in a process of their own, and kept for the next plan."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.plan.parts import Study
from ablate.plan.planner import Plan
from ablate.plan.probes import Probe, passes_of
from ablate.plan.timing import step_shape
from ablate.run.ledger import Ledger, cache_root
from trainables.spec import Scalar

PLACE = "probes"
"""Folder of the run folder that holds one file per shape and resources."""


class ProbeFailed(RuntimeError):
    """A short trial did not come to its end; the message says why."""


def kept(ledger: Ledger) -> list[Probe]:
    """The probes that the run folder holds."""
    found = [ledger.store.read(f"{PLACE}/{name}") for name in ledger.store.children(PLACE)]
    return [Probe.from_json(json.loads(content)) for content in found if content is not None]


def measure(
    plan: Plan,
    flats: Sequence[Mapping[str, Scalar]],
    ledger: Ledger,
    on_progress: Callable[[int, int], None],
) -> None:
    """Time a short trial of each spec and keep what it took in the run folder.

    Data are prepared in the run folder's cache, where the study finds them; all else that the
    trials write is removed. `on_progress` is told how many are done, and of how many. Raises
    ProbeFailed.
    """
    scratch = ledger.store.scratch()
    scratch.mkdir(parents=True)
    command = [sys.executable, "-m", "trainables.probe"]
    try:
        with (
            (scratch / "log").open("w", encoding="utf-8") as log,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            ) as child,
        ):
            try:
                for number, flat in enumerate(flats):
                    on_progress(number, len(flats))
                    ask = _ask(plan.study, flat, cache_root(ledger), scratch / "trial")
                    _keep(plan.study, flat, _answer(child, ask, scratch / "log"), ledger)
                on_progress(len(flats), len(flats))
            finally:
                child.kill()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _ask(study: Study, flat: Mapping[str, Scalar], cache: str, output: Path) -> dict[str, Any]:
    """The fields of `trainables.probe.Ask`."""
    passes = {
        name: [str(ref) for ref in refs] for name, refs in passes_of(study.references).items()
    }
    watch = study.watch
    watched = {} if watch is None else {watch.label: (str(watch.ref), watch.passages)}
    return {
        "spec": dict(flat),
        "passes": passes,
        "watch": watched,
        "cache": cache,
        "output": str(output),
        "threads": max(1, int(study.resources.cpus_per_worker)),
        "gpus": study.resources.gpus_per_worker,
    }


def _answer(child: subprocess.Popen[str], ask: Mapping[str, Any], log: Path) -> dict[str, Any]:
    line = ""
    if child.stdin is not None and child.stdout is not None:
        child.stdin.write(json.dumps(ask) + "\n")
        child.stdin.flush()
        line = child.stdout.readline()
    if not line:
        last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
        raise ProbeFailed("; ".join(["its process ended", *last]))
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise ProbeFailed(answer["error"])
    return answer


def _keep(study: Study, flat: Mapping[str, Scalar], answer: dict[str, Any], ledger: Ledger) -> None:
    resources = study.resources
    cores = f"{resources.cpus_per_worker:g} CPU" + ("" if resources.cpus_per_worker == 1 else "s")
    what = cores if answer["device"] == "CPU" else answer["device"]
    content = {
        **{key: answer[key] for key in ("start", "step", "evaluations", "watch")},
        "flat": dict(flat),
        "cpus": resources.cpus_per_worker,
        "gpus": resources.gpus_per_worker,
        "machine": f"{what} of {platform.node()}",
    }
    identity = json.dumps([step_shape(flat), content["cpus"], content["gpus"]])
    name = hashlib.sha256(identity.encode()).hexdigest()[:16]
    before = ledger.store.read(f"{PLACE}/{name}.json")
    if before is not None:
        # Collections that an earlier probe of this shape went through stay known.
        known = json.loads(before)
        for part in ("evaluations", "watch"):
            content[part] = {**known[part], **content[part]}
    ledger.store.write(f"{PLACE}/{name}.json", json.dumps(content, sort_keys=True).encode())
