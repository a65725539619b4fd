"""What `--dtype auto` is, and where a speed is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
import torch

from pipeline.engine.cluster import choose_dtype, model_device, on_a_model_device
from pipeline.spec.parts import ComputeSpec


@pytest.fixture
def able(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What says of this machine's processor that it has units for bfloat16."""
    told = tmp_path / "cpuinfo"
    told.write_text("flags\t\t: avx2 avx512_bf16\n")
    monkeypatch.setattr("pipeline.annotate.devices._PROCESSOR", told)
    return told


def check(able: Path) -> None:
    assert choose_dtype("cpu", 1024) == ("bfloat16", "all CPUs have units for it")
    assert choose_dtype("cpu", 96) == ("float32", "for encoders 96 wide on CPUs")
    able.write_text("flags\t\t: avx2\n")
    assert choose_dtype("cpu", 1024) == ("float32", "no CPUs are known to have units for bfloat16")
    if not torch.cuda.is_available():
        assert choose_dtype("cuda", 96) == ("float32", "no GPUs are known to have units for bfloat16")
        assert model_device(ComputeSpec()) == "cpu"
    assert model_device(ComputeSpec(num_gpus_per_actor=0)) == "cpu"
    assert model_device(ComputeSpec(num_gpus_per_actor=0.5)) == "cuda"
    assert on_a_model_device("cpu", lambda device: f"{device} here") == "cpu here"


def test_without_a_cluster(able: Path) -> None:
    if ray.is_initialized():
        pytest.skip("tests before this one have joined a cluster")
    check(able)


def test_on_a_cluster(local_ray: None, able: Path) -> None:
    check(able)
    if not torch.cuda.is_available():
        assert on_a_model_device("cuda", str.upper) is None
