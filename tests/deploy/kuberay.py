"""RayJob of ray.io/v1 as a JSON Schema: KubeRay's own fields, by hand from the types that its published
definition is generated from (ray-project/kuberay, ray-operator/apis/ray/v1, as of 1.5). Pods are Kubernetes'
own and validated as such."""

from __future__ import annotations

from typing import Any

_STRING, _BOOL, _COUNT = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
_STRINGS = {"type": "object", "additionalProperties": _STRING}
_ANY = {"type": "object"}


def _closed(required: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": fields,
        "required": list(required),
        "additionalProperties": False,
    }


_HEAD = _closed(
    ("template",),
    template=_ANY,
    headService=_ANY,
    enableIngress=_BOOL,
    labels=_STRINGS,
    rayStartParams=_STRINGS,
    resources=_STRINGS,
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]},
)
_WORKERS = _closed(
    ("groupName", "maxReplicas", "minReplicas", "template"),
    groupName=_STRING,
    idleTimeoutSeconds=_COUNT,
    labels=_STRINGS,
    maxReplicas=_COUNT,
    minReplicas=_COUNT,
    numOfHosts=_COUNT,
    rayStartParams=_STRINGS,
    replicas=_COUNT,
    resources=_STRINGS,
    scaleStrategy=_ANY,
    suspend=_BOOL,
    template=_ANY,
)
_AUTOSCALER = _closed(
    env={"type": "array"},
    envFrom={"type": "array"},
    idleTimeoutSeconds=_COUNT,
    image=_STRING,
    imagePullPolicy=_STRING,
    resources=_ANY,
    securityContext=_ANY,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    version={"enum": ["v1", "v2"]},
    volumeMounts={"type": "array"},
)
_CLUSTER = _closed(
    ("headGroupSpec",),
    authOptions=_closed(mode={"enum": ["token", "disabled"]}),
    autoscalerOptions=_AUTOSCALER,
    enableInTreeAutoscaling=_BOOL,
    gcsFaultToleranceOptions=_ANY,
    headGroupSpec=_HEAD,
    headServiceAnnotations=_STRINGS,
    managedBy={"enum": ["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"]},
    rayVersion=_STRING,
    suspend=_BOOL,
    upgradeStrategy=_ANY,
    workerGroupSpecs={"type": "array", "items": _WORKERS},
)
_JOB = _closed(
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
    backoffLimit=_COUNT,
    clusterSelector=_STRINGS,
    deletionStrategy=_ANY,
    entrypoint=_STRING,
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    entrypointResources=_STRING,
    jobId=_STRING,
    managedBy=_STRING,
    metadata=_STRINGS,
    preRunningDeadlineSeconds={"type": "integer", "minimum": 1},
    rayClusterSpec=_CLUSTER,
    runtimeEnvYAML=_STRING,
    shutdownAfterJobFinishes=_BOOL,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    submitterConfig=_closed(backoffLimit=_COUNT),
    submitterPodTemplate=_ANY,
    suspend=_BOOL,
    ttlSecondsAfterFinished=_COUNT,
)
RAY_JOB = _closed(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=_ANY,
    spec=_JOB,
)
