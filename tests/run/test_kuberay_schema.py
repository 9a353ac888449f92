"""The generated Kubernetes files against the fields of KubeRay's v1 API.

KubeRay's custom resource definitions come with its operator, not with a Python package. The schema
here states, after its API types (1.6), every field of the objects that the templates fill, so that
a field of another name, type or place is an error; of Kubernetes' own pods it states what is used.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import yaml

from ablate.run.cluster import kubernetes
from ablate.run.cluster.shapes import CPU, Layout
from ablate.run.cluster.templates import template

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?([KMGTPE]i?|m)?$"}
QUANTITIES: Schema = {"type": "object", "additionalProperties": QUANTITY}
ANY: Schema = {}


def fields(required: tuple[str, ...] = (), **known: Schema) -> Schema:
    """An object that has no fields but these."""
    return {
        "type": "object",
        "properties": known,
        "required": list(required),
        "additionalProperties": False,
    }


def each(item: Schema) -> Schema:
    return {"type": "array", "items": item, "minItems": 1}


def one_of(*values: str) -> Schema:
    return {"enum": list(values)}


CONTAINER = fields(
    ("name", "image"),
    name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63},
    image=TEXT,
    resources=fields(limits=QUANTITIES, requests=QUANTITIES),
)
TOLERATION = fields(key=TEXT, operator=one_of("Exists", "Equal"), value=TEXT, effect=TEXT)
POD = fields(
    ("spec",),
    metadata=fields(labels=TEXTS, annotations=TEXTS),
    spec=fields(
        ("containers",),
        containers=each(CONTAINER),
        nodeSelector=TEXTS,
        restartPolicy=one_of("Always", "OnFailure", "Never"),
        serviceAccountName=TEXT,
        tolerations=each(TOLERATION),
    ),
)
HEAD = fields(
    ("template",),
    enableIngress=FLAG,
    headService=ANY,
    ingressOptions=ANY,
    labels=TEXTS,
    rayStartParams=TEXTS,
    resources=TEXTS,
    serviceType=one_of("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"),
    template=POD,
)
WORKERS = fields(
    ("groupName", "minReplicas", "maxReplicas", "template"),
    groupName=TEXT,
    idleTimeoutSeconds=COUNT,
    labels=TEXTS,
    maxReplicas=COUNT,
    minReplicas=COUNT,
    numOfHosts=COUNT,
    priority=COUNT,
    rayStartParams=TEXTS,
    replicas=COUNT,
    resources=TEXTS,
    scaleStrategy=ANY,
    suspend=FLAG,
    template=POD,
)
AUTOSCALER = fields(
    args=ANY,
    command=ANY,
    env=ANY,
    envFrom=ANY,
    idleTimeoutSeconds=COUNT,
    image=TEXT,
    imagePullPolicy=TEXT,
    resources=ANY,
    securityContext=ANY,
    upscalingMode=one_of("Default", "Aggressive", "Conservative"),
    version=one_of("v1", "v2"),
    volumeMounts=ANY,
)
CLUSTER_SPEC = fields(
    ("headGroupSpec",),
    authOptions=fields(enableK8sTokenAuth=FLAG, mode=one_of("disabled", "token"), secretName=TEXT),
    autoscalerOptions=AUTOSCALER,
    enableInTreeAutoscaling=FLAG,
    gcsFaultToleranceOptions=ANY,
    headGroupSpec=HEAD,
    headServiceAnnotations=TEXTS,
    historyServerOptions=ANY,
    managedBy=TEXT,
    networkPolicy=ANY,
    rayVersion=TEXT,
    suspend=FLAG,
    tlsOptions=ANY,
    upgradeStrategy=ANY,
    workerGroupSpecs=each(WORKERS),
)
JOB_SPEC = fields(
    activeDeadlineSeconds=COUNT,
    backoffLimit=COUNT,
    clusterSelector=TEXTS,
    deletionStrategy=ANY,
    entrypoint=TEXT,
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    entrypointResources=TEXT,
    jobId=TEXT,
    managedBy=TEXT,
    metadata=TEXTS,
    rayClusterSpec=CLUSTER_SPEC,
    runtimeEnvYAML=TEXT,
    shutdownAfterJobFinishes=FLAG,
    submissionMode=one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    submitterConfig=ANY,
    submitterPodTemplate=POD,
    suspend=FLAG,
    ttlSecondsAfterFinished=COUNT,
)


def kind(name: str, spec: Schema) -> Schema:
    return fields(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion=one_of("ray.io/v1"),
        kind=one_of(name),
        metadata=fields(("name",), name=TEXT, annotations=TEXTS, labels=TEXTS, namespace=TEXT),
        spec=spec,
    )


CLUSTER, JOB = kind("RayCluster", CLUSTER_SPEC), kind("RayJob", JOB_SPEC)
LAYOUTS = [
    Layout(),
    Layout(most=3, machine=CPU),
    Layout(runs="s3://bucket/ablate"),
]


def faults(content: Any, schema: Schema) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(content)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["gpu", "cpu", "bucket"])
def test_a_cluster_has_the_fields_of_the_api(layout: Layout) -> None:
    content = yaml.safe_load(template("kuberay", layout))
    assert content["spec"]["workerGroupSpecs"]
    assert faults(content, CLUSTER) == []


@pytest.mark.parametrize("layout", LAYOUTS, ids=["gpu", "cpu", "bucket"])
def test_a_job_has_the_fields_of_the_api(layout: Layout) -> None:
    content = yaml.safe_load(kubernetes.job(layout, "ablate run losses"))
    assert content["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert faults(content, JOB) == []


def renamed(content: Any) -> None:
    content["spec"]["workers"] = content["spec"].pop("workerGroupSpecs")


def unquoted(content: Any) -> None:
    content["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


def elsewhere(content: Any) -> None:
    content["spec"]["idleTimeoutSeconds"] = 60


@pytest.mark.parametrize("change", [renamed, unquoted, elsewhere])
def test_the_schema_sees_what_the_operator_would_refuse(change: Callable[[Any], None]) -> None:
    content = copy.deepcopy(yaml.safe_load(template("kuberay", Layout())))
    change(content)
    assert len(faults(content, CLUSTER)) == 1
