"""The Jobs API of Ray, as far as a study needs it: submit, find again, follow to the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ablate.run.capacity import ClusterCannot

STUDY = "ablate.study"
"""Metadata of a job: the name of its study, by which it is found from any machine."""
RETRY_SECONDS = 3.0
ANSWER_SECONDS = 120.0
"""How long a cluster may take to answer at first, and to accept a job."""
PATIENCE_SECONDS = 600.0
"""How long a cluster may be out of reach before it is given up; tunnels are reopened meanwhile."""


class Jobs:
    """The jobs of one cluster, reached at an http address, with the token that it asks for."""

    def __init__(self, address: str, token: str | None) -> None:
        self.address = address
        self._headers = {"Authorization": f"Bearer {token}"} if token else None
        self._connected: Any = None

    def submit(
        self,
        job_id: str,
        study: str,
        entrypoint: str,
        folder: Path,
        env: Mapping[str, str],
        reconnect: Callable[[], None],
    ) -> None:
        """Start a job in a copy of `folder`; the cluster runs it on, whoever is watching.

        A cluster that has just come up takes a while to accept jobs. Raises ClusterCannot when it
        does not in time.
        """

        def attempt() -> None:
            found = self.find(study)
            if found is None or found[0] != job_id:
                self._client().submit_job(
                    entrypoint=entrypoint,
                    submission_id=job_id,
                    metadata={STUDY: study},
                    runtime_env={"working_dir": str(folder), "env_vars": dict(env)},
                )

        self._insist(attempt, reconnect)

    def find(self, study: str) -> tuple[str, bool] | None:
        """The id of the study's last job and whether it is still to end; None when it has none."""
        found = [
            job for job in self._client().list_jobs()
            if job.submission_id and (job.metadata or {}).get(STUDY) == study
        ]  # fmt: skip
        if not found:
            return None
        last = max(found, key=lambda job: job.start_time or 0)
        return last.submission_id, not last.status.is_terminal()

    def follow(
        self, job_id: str, write: Callable[[str], None], reconnect: Callable[[], None]
    ) -> int:
        """Write the job's output until it ends, and return its exit code.

        A broken connection is made anew, and nothing is written twice. Raises ClusterCannot when
        the cluster stays out of reach.
        """
        output, contact = _Output(write), time.monotonic()
        while True:
            try:
                asyncio.run(self._tail(job_id, output))
                job = self._client().get_job_info(job_id)
                if job.status.is_terminal():
                    return 0 if str(job.status) == "SUCCEEDED" else job.driver_exit_code or 1
                contact = time.monotonic()
            except _broken() as error:
                self._connected = None
                if time.monotonic() - contact > PATIENCE_SECONDS:
                    raise ClusterCannot(f"{self.address} is out of reach: {error}") from None
                reconnect()
            time.sleep(RETRY_SECONDS)

    def wait(self, reconnect: Callable[[], None]) -> None:
        """Return when the cluster answers; raises ClusterCannot when it does not in time."""
        self._insist(self._client, reconnect)

    def _insist(self, attempt: Callable[[], Any], reconnect: Callable[[], None]) -> None:
        end = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                attempt()
                return
            except _broken() as error:
                if time.monotonic() > end:
                    raise ClusterCannot(f"{self.address} does not answer: {error}") from None
            time.sleep(RETRY_SECONDS)
            reconnect()

    async def _tail(self, job_id: str, output: _Output) -> None:
        """Pass the job's output on, from its beginning, for as long as the connection holds."""
        output.again()
        async for text in self._client().tail_job_logs(job_id):
            output.take(text)

    def _client(self) -> Any:
        from ray.job_submission import JobSubmissionClient

        if self._connected is None:
            self._connected = JobSubmissionClient(self.address, headers=self._headers)
        return self._connected


class _Output:
    """Writes what comes, but what has been written before only once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._written = self._seen = 0

    def again(self) -> None:
        """What comes next begins at the beginning."""
        self._seen = 0

    def take(self, text: str) -> None:
        """Write the part of the text that is new."""
        fresh = text[max(0, self._written - self._seen) :]
        self._seen += len(text)
        self._written = max(self._written, self._seen)
        if fresh:
            self._write(fresh)


def _broken() -> tuple[type[Exception], ...]:
    """What a lost connection raises, in the libraries below."""
    import aiohttp
    import requests

    return (OSError, RuntimeError, aiohttp.ClientError, requests.RequestException)
