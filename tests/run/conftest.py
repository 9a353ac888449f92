"""Fixtures that the tests of run folders share: an S3 server, where moto is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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
