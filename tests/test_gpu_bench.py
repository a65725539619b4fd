"""The bench of a GPU, tiny and on a CPU: its sections run, and its page says what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.gpu.models import flops
from bench.gpu.report import report
from tests.conftest import ROOT
from w2vbert import Wav2Vec2BertConfig, Wav2Vec2BertModel
from w2vbert.packing import Packed


def smoke(folder: Path, *sections: str) -> dict[str, dict[str, Any]]:
    subprocess.run(
        ["bash", "bench/gpu.sh", "--smoke", *sections],
        cwd=ROOT,
        env={**os.environ, "OUT": str(folder), "PYTHON": sys.executable},
        check=True,
        capture_output=True,
        text=True,
    )
    assert len(list(folder.glob("gpu-*.md"))) == 1
    found = {file.stem: json.loads(file.read_text("utf-8")) for file in folder.glob("*.json")}
    for name, section in found.items():
        assert section["complete"], (name, section["error"])
        assert not [row for row in section["rows"] if row.get("failed")], name
    return found


@pytest.mark.slow
def test_sections_run(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    found = smoke(tmp_path, "parity", "drills")
    models = {row["contender"]: row["error"] for row in found["parity"]["rows"] if row["what"] == "model"}
    assert models.keys() == {"torch", "triton", "triton, compiled", "flex"}
    assert max(models.values()) < 0.02  # bfloat16 beside float32
    exact = [row for row in found["parity"]["rows"] if row.get("dtype") == "float32"]
    assert max(row["triton"] for row in exact) < 1e-6
    assert all(row["passed"] for row in found["drills"]["rows"])


@pytest.mark.soak
def test_all_sections_run(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    found = smoke(tmp_path)
    sections = {"ceilings", "parity", "race", "profile", "actor", "drills", "training"}
    assert found.keys() == sections
    assert all(found[name]["rows"] for name in sections)


def test_a_section_that_failed_is_told(tmp_path: Path) -> None:
    error = "Traceback\nRuntimeError: no such card"
    found = {
        "ceilings": {"complete": True, "error": None, "rows": [{"what": "bfloat16", "tflops": 500.0}]},
        "parity": {"complete": False, "error": error, "rows": []},
        "profile": {"complete": False, "error": None, "rows": []},
        "race": {
            "complete": True,
            "error": None,
            "rows": [
                {"mix": "10 s", "contender": "ours", "ms": 100.0, "tflops": 250.0},
                {"mix": "10 s", "contender": "ours, other", "failed": "OutOfMemoryError"},
                {"mix": "10 s", "contender": "peer eager", "ms": 300.0, "tflops": 80.0},
                {"mix": "10 s", "contender": "peer sdpa", "ms": 250.0, "tflops": 100.0},
            ],
        },
    }
    lines = report(found, "2026-01-01").splitlines()
    assert "Section parity: not complete (RuntimeError: no such card)." in lines
    assert "Section profile: not complete (stopped before its end)." in lines
    assert "Section actor: not run." in lines
    assert "| ours | 100.0 | 250.0 | 50% | 2.50 |" in lines
    assert "| ours, other | OutOfMemoryError |" in lines


def test_operations_are_those_that_pytorch_counts() -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    config = Wav2Vec2BertConfig(**sizes)
    model, lengths = Wav2Vec2BertModel(config).eval(), [200, 150]
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        features = Packed.from_sequences([torch.randn(length, 160) for length in lengths])
        model.encode(features, output_attentions=True)  # fused attention is none of what is counted
    projection = 2 * 160 * 64 * sum(lengths)
    assert flops(config, lengths) == pytest.approx(counter.get_total_flops() - projection, rel=0.01)
