"""What a launch names that means nothing, or something else, on the machines of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from ablate.plan.planner import Plan
from ablate.run.cluster.ways import DASHBOARD
from ablate.run.store import mask
from trainables.data.collections import anywhere
from trainables.errors import Problem
from trainables.model.backbones import PREFIX

RULE = "is found on this machine only; name it by an absolute path that every node sees"


def only_here(plan: Plan) -> Iterator[Problem]:
    """The collections and backbones that only this machine finds: by a path relative to its working
    directory or home, or in a folder of its ABLATE_COLLECTIONS. Built-in ones are found anywhere.
    """
    for name in plan.fingerprints:
        found = anywhere(name)
        if found != name and not Path(name).is_absolute():
            yield Problem("data", RULE, name, found)
    for value in plan.study.listed("encoder.backbone"):
        if not isinstance(value, str) or value.startswith(PREFIX) or Path(value).is_absolute():
            continue
        folder = Path(value).expanduser()
        if folder.is_dir():
            yield Problem("encoder.backbone", RULE, value, str(folder.absolute()))


def wrong_address(address: str) -> Iterator[Problem]:
    """Why this is no address of a Jobs API, http://HOST:PORT."""
    text = address if "://" in address else f"http://{address}"
    host: str | None = None
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        port = None
    if host and port and address.startswith(("http://", "https://")):
        return
    # Ray's other ports, ray://HOST:10001 and HOST:6379, are no Jobs API.
    near = None if not host or host == "auto" else f"http://{host}:{DASHBOARD}"
    yield Problem("--address", "must be a Jobs API, http://HOST:PORT", mask(address), near)
