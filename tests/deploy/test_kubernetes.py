"""The files for Kubernetes: against the published schemas, and against what a job takes."""

from __future__ import annotations

import copy
import shlex
from importlib.metadata import version
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from pipeline.spec import TranscribeSpec
from tests.conftest import ROOT
from tests.deploy.kuberay import RAY_JOB

KUBERNETES = "1.31"


def documents(name: str) -> dict[str, dict[str, Any]]:
    """The objects of a file by their kind."""
    found = yaml.safe_load_all((ROOT / "deploy" / name).read_text(encoding="utf-8"))
    return {document["kind"]: document for document in found}


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates of a RayJob."""
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"]["template"], *(g["template"] for g in cluster["workerGroupSpecs"])]


def as_pod(template: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template}


def validate(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_the_ray_job_is_valid() -> None:
    found = documents("rayjob.yaml")
    jsonschema.validate(found["RayJob"], RAY_JOB)
    validate(found["ConfigMap"])
    for template in pods(found["RayJob"]):
        validate(as_pod(template))


def test_a_misspelt_field_is_found() -> None:
    job = documents("rayjob.yaml")["RayJob"]
    wrong = copy.deepcopy(job)
    wrong["spec"]["rayClusterSpec"]["authOption"] = wrong["spec"]["rayClusterSpec"].pop("authOptions")
    with pytest.raises(jsonschema.ValidationError, match="authOption"):
        jsonschema.validate(wrong, RAY_JOB)
    template = pods(job)[1]
    template["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        validate(as_pod(template))


def test_the_nightly_job_is_valid() -> None:
    found = documents("nightly.yaml")
    for document in found.values():
        validate(document)
    assert found["CronJob"]["spec"]["concurrencyPolicy"] == "Forbid"


def test_nodes_have_the_version_of_ray_that_is_tested() -> None:
    assert documents("rayjob.yaml")["RayJob"]["spec"]["rayClusterSpec"]["rayVersion"] == version("ray")


def test_every_node_has_a_token_one_image_and_memory_for_objects() -> None:
    job = documents("rayjob.yaml")["RayJob"]
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    for template in pods(job):
        (container,) = template["spec"]["containers"]
        assert container["image"] == "w2vbert"
        assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
        assert {"name": "shm", "emptyDir": {"medium": "Memory"}} in template["spec"]["volumes"]


@pytest.mark.parametrize(
    ("name", "kind", "actors"), [("rayjob.yaml", "RayJob", "1:4"), ("nightly.yaml", "CronJob", "auto")]
)
def test_the_command_takes_the_settings(name: str, kind: str, actors: str) -> None:
    found = documents(name)
    if kind == "RayJob":
        command = shlex.split(found[kind]["spec"]["entrypoint"])
    else:
        pod = found[kind]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        command = pod["containers"][0]["command"]
    assert command == ["python", "-m", "jobs.transcribe", "--config", "/etc/w2vbert/job.yaml"]
    spec = TranscribeSpec(**yaml.safe_load(found["ConfigMap"]["data"]["job.yaml"]))
    assert spec.corpus.input[0].startswith("s3://corpus")
    assert (spec.table.output, spec.compute.num_actors) == ("s3://lake/transcripts/", actors)
