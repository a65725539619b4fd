"""The cluster-launcher file, against Ray's own schema and against what a job counts on."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ParamValidationError
from moto import mock_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def cluster() -> dict[str, Any]:
    """The file as written."""
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An AWS account with what the file's header asks for, simulated by moto."""
    monkeypatch.setenv("HOME", str(tmp_path))  # the launcher keeps the key pair that it creates there
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "simulated")
    with mock_aws():
        boto3.client("iam", "us-east-1").create_instance_profile(InstanceProfileName="w2vbert-ray")
        yield


def validate(config: dict[str, Any]) -> dict[str, Any]:
    """What `ray up` does before it calls AWS: fills in the defaults, then checks. Returns the full file."""
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_ray_accepts_the_file(cluster: dict[str, Any]) -> None:
    prepared = validate(cluster)
    assert prepared["provider"]["type"] == "aws"
    # What Ray completes must not bring in node groups or commands of its own.
    assert set(prepared["available_node_types"]) == {"head", "cpu", "gpu"}
    assert prepared["worker_setup_commands"] == cluster["setup_commands"]
    assert prepared["head_setup_commands"] == cluster["setup_commands"]


def launch(cluster: dict[str, Any]) -> dict[str, Any]:
    """What `ray up` asks of AWS: keys, network, and one machine of each group, which is returned."""
    bootstrapped = _bootstrap_config(cluster, no_config_cache=True)
    provider = AWSNodeProvider(bootstrapped["provider"], bootstrapped["cluster_name"])
    started = {}
    for name, group in bootstrapped["available_node_types"].items():
        (started[name],) = provider.create_node(group["node_config"], {}, count=1).values()
    return started


@pytest.mark.slow
def test_aws_starts_a_machine_of_each_group(cluster: dict[str, Any], aws: None) -> None:
    started = launch(cluster)
    assert {name: (node.instance_type, node.instance_lifecycle) for name, node in started.items()} == {
        "head": ("m7i.xlarge", None),  # on demand: a job does not outlive its head
        "cpu": ("m7i.2xlarge", None),
        "gpu": ("g6.2xlarge", "spot"),
    }
    for node in started.values():
        assert node.iam_instance_profile["Arn"].endswith(":instance-profile/w2vbert-ray")


@pytest.mark.slow
def test_aws_refuses_what_rays_schema_cannot_see(cluster: dict[str, Any], aws: None) -> None:
    node = cluster["available_node_types"]["gpu"]["node_config"]
    node["InstanceMarketOption"] = node.pop("InstanceMarketOptions")
    validate(cluster)
    with pytest.raises(ParamValidationError, match="InstanceMarketOption"):
        launch(cluster)


def test_worker_counts(cluster: dict[str, Any]) -> None:
    groups = cluster["available_node_types"]
    assert cluster["head_node_type"] in groups
    for name, group in groups.items():
        assert 0 <= group.get("min_workers", 0) <= group["max_workers"] <= cluster["max_workers"], name
    assert sum(group.get("min_workers", 0) for group in groups.values()) <= cluster["max_workers"]
    # Every group can reach its own ceiling while the others are at theirs.
    assert sum(group["max_workers"] for group in groups.values()) <= cluster["max_workers"]


def test_gpu_workers_come_and_go(cluster: dict[str, Any]) -> None:
    with_gpus = {
        name for name, group in cluster["available_node_types"].items() if "GPU" in group["resources"]
    }
    assert with_gpus == {"gpu"}
    gpu = cluster["available_node_types"]["gpu"]
    assert gpu["resources"]["GPU"] >= 1
    assert gpu["min_workers"] == 0
    assert gpu["max_workers"] >= 1
    assert cluster["idle_timeout_minutes"] > 0
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_every_node_has_the_same_image_and_may_reach_s3(cluster: dict[str, Any]) -> None:
    nodes = [group["node_config"] for group in cluster["available_node_types"].values()]
    assert len({node["ImageId"] for node in nodes}) == 1
    assert all(node["IamInstanceProfile"] for node in nodes)


def test_setup_installs_the_synced_project(cluster: dict[str, Any]) -> None:
    project = "/home/ubuntu/w2vbert"
    mounted = {
        Path(remote).relative_to(project).as_posix(): local
        for remote, local in cluster["file_mounts"].items()
    }
    assert set(mounted) == {"pyproject.toml", "README.md", "w2vbert", "pipeline", "jobs"}
    for remote, local in mounted.items():
        assert remote == local
        assert (ROOT / local).exists()
    install = [command for command in cluster["setup_commands"] if "pip install" in command]
    assert len(install) == 1
    assert 'pip install -q "$HOME/w2vbert"' in install[0]
    assert {".venv", ".git", "demo/out"} <= set(cluster["rsync_exclude"])


def test_commands_are_shell(cluster: dict[str, Any]) -> None:
    lists = ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
    for command in (command for name in lists for command in cluster[name]):
        subprocess.run(["bash", "-n", "-c", command], check=True)


@pytest.mark.parametrize("start", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_object_store_is_two_fifths_of_the_memory(cluster: dict[str, Any], start: str) -> None:
    size = cluster[start][-1].split("--object-store-memory=")[1]
    printed = int(
        subprocess.run(["bash", "-c", f"echo {size}"], check=True, capture_output=True, text=True).stdout
    )
    total = int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]) * 1024
    assert printed == pytest.approx(0.4 * total, abs=1)
