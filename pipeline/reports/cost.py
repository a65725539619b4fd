"""What a run will cost, before it runs: the arithmetic of the encoder, and how fast it may go."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.storage import place_errors
from pipeline.table.ledger import Ledger

if TYPE_CHECKING:  # late: every job imports this file, and few plan
    import torch

    from w2vbert.config import Wav2Vec2BertConfig

_EFFICIENCY = 0.5  # of the matrix products' rate, in a whole encoder: between what CPUs and GPUs reach
_MEASURED_S = 0.3


@dataclass(frozen=True)
class Encoders:
    """Encoders that run over all of the audio; `frame_s`: seconds from one of their frames to the next."""

    configs: Sequence[Wav2Vec2BertConfig]
    frame_s: float

    def flops_per_second(self, clip_s: float) -> float:
        """Floating-point operations for one second of audio in clips of `clip_s` seconds."""
        frames = max(1, round(clip_s / self.frame_s))
        return sum(_flops_per_frame(config, frames) for config in self.configs) / self.frame_s


@dataclass(frozen=True)
class MatrixRate:
    """Floating-point operations per second of matrix products, and of which device."""

    per_s: float
    device: str


@dataclass(frozen=True)
class Costs:
    """What a run's speed is estimated from. `measure` asks a device that the models would run on; it answers
    None where none is there yet."""

    encoders: Encoders
    measure: Callable[[], MatrixRate | None]


@dataclass(frozen=True)
class Speed:
    """Seconds of audio that one device encodes in a second, and how that is known."""

    audio_s_per_s: float
    basis: str


def earlier_speed(ledger: Ledger) -> Speed | None:
    """As measured by earlier runs on the same output; None where there were none."""
    with place_errors("--output", ledger.output):
        measured = [summary for summary in ledger.summaries() if summary.get("encoder_s")]
    hours = sum(summary.get("hours") or 0.0 for summary in measured)
    encoder_s = sum(summary["encoder_s"] for summary in measured)
    if not hours or not encoder_s:
        return None
    speed = hours * 3600 / encoder_s
    return Speed(
        speed, f"earlier runs here: the encoder took {encoder_s:,.1f} s for {hours * 60:,.1f} min of audio"
    )


def estimated_speed(costs: Costs, clip_s: float, dtype: str) -> Speed | None:
    """From the encoders' arithmetic and the rate of matrix products on a device that would run them.

    Args:
        clip_s: seconds that attention looks over.
    """
    rate = costs.measure()
    if rate is None:
        return None
    flops = costs.encoders.flops_per_second(clip_s)
    basis = (
        f"{flops / 1e9:,.3g} GFLOP per second of audio, at {_EFFICIENCY:.0%} of the "
        f"{rate.per_s / 1e9:,.0f} GFLOP/s that {dtype} products reach ({rate.device})"
    )
    if len(costs.encoders.configs) > 1:
        basis += f"; {len(costs.encoders.configs)} encoders"
    return Speed(_EFFICIENCY * rate.per_s / flops, basis)


def matrix_rate(device: str, dtype: str) -> MatrixRate:
    """Of products as large as those of the model, on this machine; "float32" in TF32 on GPUs."""
    import torch

    on_gpu = device == "cuda"
    name = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    rows, at_once = (8192, 20) if on_gpu else (512, 1)  # a GPU is told of many before it is waited for
    if on_gpu:
        torch.backends.cuda.matmul.allow_tf32 = True
    left = torch.randn(rows, 1024, device=device).to(getattr(torch, dtype))
    right = torch.randn(1024, 4096, device=device).to(left.dtype)
    _finish(left @ right)
    started, products = time.perf_counter(), 0
    while time.perf_counter() - started < _MEASURED_S:
        for _ in range(at_once):
            product = left @ right
        _finish(product)
        products += at_once
    spent = time.perf_counter() - started
    return MatrixRate(products * 2 * rows * 1024 * 4096 / spent, f"{name} on {platform.node()}")


def _flops_per_frame(config: Wav2Vec2BertConfig, frames: int) -> float:
    """Of a clip of so many frames."""
    # All layers are alike, and counting one takes a while.
    one, two = (_flops(_with_layers(config, layers), frames) for layers in (1, 2))
    return (one + (config.num_hidden_layers - 1) * (two - one)) / frames


def _with_layers(config: Wav2Vec2BertConfig, layers: int) -> Wav2Vec2BertConfig:
    from w2vbert.config import Wav2Vec2BertConfig

    return Wav2Vec2BertConfig.from_dict(config.to_dict(), num_hidden_layers=layers)


def _flops(config: Wav2Vec2BertConfig, frames: int) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from w2vbert.model import Wav2Vec2BertModel
    from w2vbert.packing import Packed

    with torch.device("meta"):  # shapes alone: no weights, no arithmetic
        model = Wav2Vec2BertModel(config).eval()
        features = torch.empty(frames, config.feature_projection_input_dim)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.encode(Packed(features, (frames,)))
    return int(counter.get_total_flops())


def _finish(result: torch.Tensor) -> None:
    result[0, 0].item()  # waits for a GPU
