"""How a cluster is brought up, reached and taken down, as commands of its own tools."""

from __future__ import annotations

import base64
import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ablate.run.cluster.file import ClusterFile
from trainables.errors import Problem

Argv = tuple[str, ...]
DASHBOARD = 8265


class Way(Protocol):
    """The way to one cluster. An empty command means that there is nothing to do."""

    def needs(self) -> list[Problem]:
        """What this machine lacks: programs, packages, credentials. No network is touched."""

    def up(self) -> list[Argv]:
        """Commands that bring the cluster up, or change it to what the file says."""

    def tunnel(self, port: int) -> Argv:
        """The command that, while it runs, brings the cluster's dashboard to a local port."""

    def secret(self) -> Argv:
        """The command that prints the cluster's token in base64."""

    def copy(self, runs: str, into: str) -> Argv:
        """The command that copies a run folder on the cluster's disk into one here."""

    def down(self) -> list[Argv]:
        """Commands that take it down."""


@dataclass(frozen=True)
class Launcher:
    """Machines of a cloud, or hosts of one's own, by `ray up`."""

    file: ClusterFile

    def needs(self) -> list[Problem]:
        found = [_program(name) for name in ("ssh", "rsync") if not shutil.which(name)]
        for mount in self.file.mounts:
            local = Path(mount).expanduser()
            if mount.startswith("./") and not local.exists():
                rule = "does not exist; call this in the folder of the checkout"
                found.append(Problem(f"file_mounts {mount}", rule, place=str(self.file.path)))
        return found + _credentials(self.file.provider)

    def up(self) -> list[Argv]:
        token: list[Argv] = []
        if any(mount.endswith("auth_token") for mount in self.file.mounts):
            token = [("ray", "get-auth-token", "--generate")]
        return [*token, ("ray", "up", "--yes", "--no-config-cache", str(self.file.path))]

    def tunnel(self, port: int) -> Argv:
        remote = f"--remote-port={DASHBOARD}"
        return ("ray", "dashboard", f"--port={port}", remote, str(self.file.path))

    def secret(self) -> Argv:
        return ()

    def copy(self, runs: str, into: str) -> Argv:
        return ("ray", "rsync-down", str(self.file.path), f"{runs.rstrip('/')}/", f"{into}/")

    def down(self) -> list[Argv]:
        return [("ray", "down", "--yes", str(self.file.path))]


@dataclass(frozen=True)
class Kubectl:
    """A RayCluster on Kubernetes, with the context and namespace that kubectl is set to."""

    file: ClusterFile

    def needs(self) -> list[Problem]:
        found = [] if shutil.which("kubectl") else [_program("kubectl")]
        kubeconfig = os.environ.get("KUBECONFIG", "~/.kube/config").split(os.pathsep)
        if not any(Path(name).expanduser().exists() for name in kubeconfig):
            found.append(Problem("credentials", "kubectl has no kubeconfig: set KUBECONFIG"))
        return found

    def up(self) -> list[Argv]:
        ready = ("--for=condition=HeadPodReady", "--timeout=900s")
        return [
            ("kubectl", "apply", "--filename", str(self.file.path)),
            ("kubectl", "wait", *ready, f"raycluster/{self.file.name}"),
        ]

    def tunnel(self, port: int) -> Argv:
        service = f"service/{self.file.name}-head-svc"
        return ("kubectl", "port-forward", service, f"{port}:{DASHBOARD}")

    def secret(self) -> Argv:
        path = "--output=jsonpath={.data.auth_token}"
        return ("kubectl", "get", "secret", self.file.name, path)

    def copy(self, runs: str, into: str) -> Argv:
        return ()

    def down(self) -> list[Argv]:
        return [("kubectl", "delete", "--filename", str(self.file.path))]


@dataclass(frozen=True)
class Existing:
    """A cluster that somebody else brings up and down, reached at its Jobs API."""

    address: str

    def needs(self) -> list[Problem]:
        return []

    def up(self) -> list[Argv]:
        return []

    def tunnel(self, port: int) -> Argv:
        return ()

    def secret(self) -> Argv:
        return ()

    def copy(self, runs: str, into: str) -> Argv:
        return ()

    def down(self) -> list[Argv]:
        return []


def local_token() -> str | None:
    """The token that this machine shows to clusters, or None; never printed or written."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"]
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    return path.read_text(encoding="utf-8").strip() if path.exists() else None


def decoded(secret: bytes) -> str:
    """The token in a Kubernetes secret."""
    return base64.b64decode(secret).decode()


def _program(name: str) -> Problem:
    return Problem(name, "is not installed")


def _credentials(provider: str) -> list[Problem]:
    """Whether the provider's usual places hold credentials; their content is not looked at."""
    variables, files, package, hint = _PLACES.get(provider, ((), (), None, ""))
    found = []
    if package and importlib.util.find_spec(package) is None:
        rule = f"is not installed, and `ray up` needs it: pip install {_PIP[package]}"
        found.append(Problem(package, rule))
    if not hint:
        return found
    known = any(os.environ.get(name) for name in variables)
    if not known and not any(Path(name).expanduser().exists() for name in files):
        found.append(Problem("credentials", f"none for {provider}: {hint}"))
    return found


_PLACES: dict[str, tuple[tuple[str, ...], tuple[str, ...], str | None, str]] = {
    "aws": (
        ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
        ("~/.aws/credentials", "~/.aws/config"),
        "boto3",
        "aws configure",
    ),
    "gcp": (
        ("GOOGLE_APPLICATION_CREDENTIALS",),
        ("~/.config/gcloud/application_default_credentials.json",),
        "googleapiclient",
        "gcloud auth application-default login",
    ),
}
_PIP = {"boto3": "boto3", "googleapiclient": "google-api-python-client"}
