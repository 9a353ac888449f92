"""Cluster files for Ray's launcher: one layout in the form of each provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ablate.run.cluster import kubernetes
from ablate.run.cluster.shapes import EXTRAS, HEAD, ON_DEMAND, SHIPPED, SPOT, UNFILLED, Layout
from ablate.run.cluster.text import Section, render

DISK_GIB = 200
HOME = "~/ablate"
TOKEN = "~/.ray/auth_token"
INSTALL = f"cd {HOME} && python -m pip install --no-cache-dir -c constraints.txt '.[{EXTRAS}]'"
START = "RAY_AUTH_MODE=token ray start"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
EXCLUDED = ["__pycache__", "cache", "checkpoint", "resume", ".tmp"]
_HEADER = f"""\
A cluster for ablate on {{provider}}: a head that only drives, and workers that come when trials
wait for them. For another provider: ablate cluster template {{others}}.
Fill in what starts with {UNFILLED}, then, in the checkout's folder:

  ablate launch STUDY --cluster THIS-FILE --dry-run     every command that would run
  ablate launch STUDY --cluster THIS-FILE --down        run it, fetch the results, take it down
"""
_METADATA = """\
Ray does not read this part. `runs` is the run folder, which every node must see. With the price
of each node type in US dollars an hour, the cost is shown before and after.
"""
_GROWTH = """\
Workers come as trials wait for them and go when they have been idle for so long. A sweep keeps at
most {most} busy. Twice as many may be asked for, since requests for spot machines that are being
refused must leave room for those in their place.
"""
_NODES = f"""\
Spot machines are asked for first (priority). Where they are refused, the sweep asks for
NAME{ON_DEMAND} in place of NAME{SPOT}, by the resource of that name. A trial whose spot
machine is taken away goes on elsewhere from its last checkpoint.
"""
_AWS_PROVIDER = """\
Ports: Ray's security group lets in SSH, by key, and nothing else; to narrow that too, give each
node type SecurityGroupIds of your own. The dashboard listens on the head's loopback only and is
reached through SSH. Credentials come from your environment or ~/.aws, never from this file.
"""
_AWS_NODES = f"""\
{_NODES}Both profiles must allow reading and writing the run folder; the head's also starting
machines (EC2) and iam:PassRole for the workers'. Without ImageId, Ray takes the Deep Learning AMI
that it knows for the region; it has Docker and the NVIDIA driver.
"""
_GCP_PROVIDER = """\
Ports: Ray's firewall rule lets in SSH, by key. The dashboard listens on the head's loopback only
and is reached through SSH. Credentials come from `gcloud auth application-default login`, never
from this file.
"""
_GCP_NODES = f"""\
{_NODES}The service account must allow reading and writing the run folder and, for the head,
starting machines and acting as this account. The image needs Docker and the NVIDIA driver:
gcloud compute images list --project deeplearning-platform-release
"""
_LOCAL_METADATA = """\
Ray does not read this part. `runs` is the run folder: a disk that every host mounts at this path,
or an object store. `each_host_has` says what a host offers, so that a study that cannot fit is
refused before anything starts.
"""
_LOCAL_PROVIDER = """\
The hosts; the head trains too. They need SSH by key, rsync and Python 3.11. Ray's ports must be
reachable between the hosts and closed to everybody else: that is your firewall's work. Beyond it,
every connection must show the token below.
"""
_IMAGE = """\
Ray's own images, by version. To start machines faster, build one with the set-up command below
in it and name it here.
"""
_FILES = """\
What pip needs of the checkout; the paths on the right are relative to where `ray up` is called.
The token is what every connection to the cluster must show: ray get-auth-token --generate
"""
_SETUP = "The versions of constraints.txt, and no others of what it names."
_STARTING = "A cluster without this token accepts no job."


def template(provider: str, layout: Layout) -> str:
    """The cluster file of a provider, one of `PROVIDERS`, as commented YAML."""
    return PROVIDERS[provider](layout)


def _aws(layout: Layout) -> str:
    node = {"BlockDeviceMappings": [_disk()]}

    def profile(whose: str) -> dict[str, Any]:
        return {"IamInstanceProfile": {"Name": f"{UNFILLED}{whose}-PROFILE"}}

    def worker(name: str, spot: bool) -> dict[str, Any]:
        market = {"InstanceMarketOptions": {"MarketType": "spot"}} if spot else {}
        return {"InstanceType": name, **market, **profile("WORKER"), **node}

    provider = {"type": "aws", "region": "us-west-2", "cache_stopped_nodes": False}
    head = {"InstanceType": HEAD.names["aws"], **profile("HEAD"), **node}
    return render(
        [
            _title(layout, "AWS", "gcp|local|kuberay"),
            _metadata(layout, "s3://"),
            (_AWS_PROVIDER, {"provider": provider, "auth": {"ssh_user": "ubuntu"}}),
            *_growth(layout),
            (_AWS_NODES, _node_types(layout, "aws", head, worker)),
            *_software(layout, "boto3>=1.26,<2"),
        ]
    )  # fmt: skip


def _gcp(layout: Layout) -> str:
    account = {"email": f"ablate@{UNFILLED}PROJECT.iam.gserviceaccount.com", "scopes": [SCOPE]}
    disk = {
        "boot": True,
        "autoDelete": True,
        "type": "PERSISTENT",
        "initializeParams": {
            "diskSizeGb": DISK_GIB,
            "sourceImage": f"projects/deeplearning-platform-release/global/images/{UNFILLED}IMAGE",
        },
    }

    def node(name: str, spot: bool | None) -> dict[str, Any]:
        scheduling: dict[str, Any] = {} if spot is None else {"onHostMaintenance": "TERMINATE"}
        if spot:
            scheduling |= {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"}
        extra = {"scheduling": scheduling} if scheduling else {}
        return {"machineType": name, "disks": [disk], "serviceAccounts": [account], **extra}

    provider = {
        "type": "gcp",
        "region": "us-west1",
        "availability_zone": "us-west1-a",
        "project_id": f"{UNFILLED}PROJECT",
    }
    head = node(HEAD.names["gcp"], None)
    return render(
        [
            _title(layout, "Google Cloud", "aws|local|kuberay"),
            _metadata(layout, "gs://"),
            (_GCP_PROVIDER, {"provider": provider, "auth": {"ssh_user": "ubuntu"}}),
            *_growth(layout),
            (_GCP_NODES, _node_types(layout, "gcp", head, node)),
            *_software(layout, "google-api-python-client>=2,<3"),
        ]
    )  # fmt: skip


def _local(layout: Layout) -> str:
    head, *workers = layout.hosts or (f"{UNFILLED}HEAD-ADDRESS", f"{UNFILLED}HOST-ADDRESS")
    provider = {"type": "local", "head_ip": head, "worker_ips": workers}
    auth = {"ssh_user": f"{UNFILLED}USER", "ssh_private_key": "~/.ssh/id_ed25519"}
    have = {"CPU": layout.machine.cpus, "GPU": layout.machine.gpus}
    about = {
        "runs": layout.runs or f"/{UNFILLED}SHARED-FOLDER/ablate",
        "each_host_has": {key: amount for key, amount in have.items() if amount},
    }
    venv = "python3.11 -m venv ~/ablate-venv"
    install = INSTALL.replace("&& python", "&& ~/ablate-venv/bin/python")
    path = "PATH=$HOME/ablate-venv/bin:$PATH"
    ray, stop = f"{path} RAY_AUTH_MODE=token ray start", f"{path} ray stop"
    return render(
        [
            _title(layout, "hosts of your own", "aws|gcp|kuberay"),
            (_LOCAL_METADATA, {"metadata": about}),
            (_LOCAL_PROVIDER, {"provider": provider, "auth": auth}),
            ("All hosts are used from the start.", {"max_workers": len(workers)}),
            (_FILES, {"file_mounts": _mounts(), "rsync_exclude": EXCLUDED}),
            (_SETUP, {"setup_commands": [venv, install]}),
            (_STARTING, _start_commands(ray, stop, head="")),
        ]
    )  # fmt: skip


def _title(layout: Layout, provider: str, others: str) -> Section:
    return _HEADER.format(provider=provider, others=others), {"cluster_name": layout.name}


def _metadata(layout: Layout, scheme: str) -> Section:
    prices = dict.fromkeys(layout.types)
    return _METADATA, {"metadata": {"runs": layout.runs_in(scheme), "usd_per_hour": prices}}


def _growth(layout: Layout) -> list[Section]:
    growth = {"max_workers": len(layout.workers) * layout.most, "upscaling_speed": 100.0}
    comment = _GROWTH.format(most=layout.most)
    return [(comment, {**growth, "idle_timeout_minutes": layout.idle_minutes})]


def _node_types(
    layout: Layout,
    provider: str,
    head: Mapping[str, Any],
    node: Callable[[str, bool], Mapping[str, Any]],
) -> dict[str, Any]:
    types: dict[str, Any] = {
        "head": {"resources": {"CPU": 0}, "max_workers": 0, "node_config": dict(head)}
    }
    for kind in layout.workers:
        types[kind.name] = {
            "resources": kind.resources,
            "min_workers": 0,
            "max_workers": kind.most,
            "priority": kind.priority,
            "node_config": dict(node(kind.machine.names[provider], kind.spot)),
        }
    return {"available_node_types": types, "head_node_type": "head"}


def _software(layout: Layout, launcher: str) -> list[Section]:
    docker = {
        "head_image": layout.image(HEAD),
        "worker_image": layout.image(layout.machine),
        "container_name": "ablate",
        "run_options": ["--ulimit nofile=65536:65536"],
    }
    head_setup = [f"python -m pip install --no-cache-dir '{launcher}'"]
    return [
        (_IMAGE, {"docker": docker}),
        (_FILES, {"file_mounts": _mounts(), "rsync_exclude": EXCLUDED}),
        (_SETUP, {"setup_commands": [INSTALL], "head_setup_commands": head_setup}),
        (_STARTING, _start_commands(START, "ray stop", head=" --num-cpus=0")),
    ]


def _start_commands(ray: str, stop: str, head: str) -> dict[str, Any]:
    return {
        "head_start_ray_commands": [
            stop,
            f"{ray} --head --port=6379{head} --dashboard-host=127.0.0.1 "
            "--autoscaling-config=~/ray_bootstrap_config.yaml --disable-usage-stats",
        ],
        "worker_start_ray_commands": [
            stop,
            f"{ray} --address=$RAY_HEAD_IP:6379 --disable-usage-stats",
        ],
    }


def _mounts() -> dict[str, str]:
    return {f"{HOME}/{name}": f"./{name}" for name in SHIPPED} | {TOKEN: TOKEN}


def _disk() -> dict[str, Any]:
    return {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": DISK_GIB, "VolumeType": "gp3"}}


PROVIDERS: Mapping[str, Callable[[Layout], str]] = {
    "aws": _aws,
    "gcp": _gcp,
    "local": _local,
    "kuberay": kubernetes.manifest,
}
