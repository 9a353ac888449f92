"""Fixtures of the tests of run folders: a cluster file, and a server of S3 where moto is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ablate.run.cluster.file import ClusterFile, read
from ablate.run.cluster.shapes import Layout
from tests.run.cluster_files import written
from tests.run.s3_server import KEYS, serving


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """The port of an S3 server on this machine."""
    pytest.importorskip("moto", reason="the S3 server of moto is not installed")
    with serving() as port:
        yield port


@pytest.fixture
def s3_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of this process has what the S3 server asks for."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def aws(tmp_path: Path) -> ClusterFile:
    """The cluster file for AWS, with a run folder filled in."""
    return read(written(tmp_path, "aws", Layout(runs="s3://bucket/ablate")))
