"""The arithmetic of the encoder, counted on a model without weights."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
import torch

from pipeline.errors import JobError
from pipeline.reports.cost import (
    Costs,
    Encoders,
    MatrixRate,
    Speed,
    earlier_speed,
    estimated_speed,
    matrix_rate,
)
from pipeline.storage import Storage, StorageError, StorageOptions
from pipeline.table.ledger import Ledger
from w2vbert.config import Wav2Vec2BertConfig


def products(config: Wav2Vec2BertConfig, frames: int) -> int:
    """Multiplications of one second in `relative_key`, from the sizes of the weights."""
    width, inner, kernel = config.hidden_size, config.intermediate_size, config.conv_depthwise_kernel_size
    band = config.left_max_position_embeddings + config.right_max_position_embeddings + 1
    layer = 2 * 2 * width * inner  # two feed-forward blocks
    layer += 4 * width * width  # queries, keys, values, output
    layer += 2 * frames * width + band * width  # scores, sums, positions
    layer += 2 * width * width + width * width + kernel * width  # pointwise, pointwise, depthwise
    return 50 * (config.feature_projection_input_dim * width + config.num_hidden_layers * layer)


@pytest.mark.parametrize("seconds", [2.0, 20.0])
def test_flops_of_a_small_model(seconds: float) -> None:
    config = Wav2Vec2BertConfig(
        hidden_size=128, num_hidden_layers=5, num_attention_heads=4, intermediate_size=512
    )
    assert Encoders([config], 0.02).flops_per_second(seconds) == pytest.approx(
        2 * products(config, round(50 * seconds)), rel=0.01
    )


def test_flops_of_the_full_size() -> None:
    # 58 GFLOP a second without attention's scores and sums, as the weights alone give.
    config = Wav2Vec2BertConfig()
    scores = 2 * 2 * 50 * 500 * 1024 * 24
    assert (Encoders([config], 0.02).flops_per_second(10.0) - scores) / 1e9 == pytest.approx(58, abs=0.5)


@pytest.mark.slow
def test_speed_says_what_it_rests_on() -> None:
    config = Wav2Vec2BertConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128
    )
    flops = Encoders([config], 0.02).flops_per_second(1.0)

    def speed(encoders: int, rate: MatrixRate | None) -> Speed | None:
        return estimated_speed(Costs(Encoders([config] * encoders, 0.02), lambda: rate), 1.0, "bfloat16")

    one, two = (speed(count, MatrixRate(4e12, "a card on node 7")) for count in (1, 2))
    assert one is not None
    assert two is not None
    assert one.audio_s_per_s == pytest.approx(2e12 / flops)
    assert "at 50% of the 4,000 GFLOP/s that bfloat16 products reach (a card on node 7)" in one.basis
    assert two.basis.endswith("; 2 encoders")
    assert speed(1, None) is None


def test_the_rate_of_this_machine() -> None:
    rate = matrix_rate("cpu", "float32")
    assert 1e9 < rate.per_s < 1e14
    assert f"CPU, {torch.get_num_threads()} threads on {platform.node()}" == rate.device


def test_earlier_runs_tell_their_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(StorageOptions())
    ledger = Ledger(str(tmp_path), storage)
    assert earlier_speed(ledger) is None
    run = {"run_id": "run1", "hours": 2.0, "encoder_s": 72.0}
    files = {
        "run1": json.dumps(run),
        "run2": json.dumps({**run, "encoder_s": None}),
        "gone": json.dumps(run),
        "notes": "no JSON",
        "list": "[1]",
        "lock-after-x": json.dumps({"owner": "eve"}),
        "table": json.dumps({"models": {}}),
        "lock": "half",
    }
    for name, text in files.items():
        storage.write_bytes(f"{ledger.home}/{name}.json", text.encode())
    listed = storage.list_files(ledger.home)
    storage.remove(f"{ledger.home}/gone.json")
    monkeypatch.setattr(Storage, "list_files", lambda *_: listed)
    found = earlier_speed(ledger)
    assert found is not None
    assert found.audio_s_per_s == pytest.approx(100.0)

    def fail(*_: object) -> list[str]:
        raise StorageError("no right to look")

    monkeypatch.setattr(Storage, "list_files", fail)
    with pytest.raises(JobError, match="--output no right to look"):
        earlier_speed(ledger)
