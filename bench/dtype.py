"""From which width on bfloat16 is the faster on this processor: one layer, by width and frames.

    python -m bench.dtype --date 2026-11-28 --output bench/results/dtype.md

Processor time of one thread, medians of interleaved passes. What `--dtype auto` does on CPUs rests on it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from bench.machine import describe
from w2vbert import Wav2Vec2BertConfig, Wav2Vec2BertModel
from w2vbert.packing import Packed

WIDTHS = (96, 192, 256, 384, 512, 768, 1024)
PACKS = ((22,) * 16, (500,), (125, 250, 375, 500))  # frames of each clip
DTYPES = (torch.float32, torch.bfloat16)


def race(width: int, lengths: tuple[int, ...], repeats: int) -> dict[torch.dtype, float]:
    """Milliseconds of a pass, by dtype."""
    config = Wav2Vec2BertConfig(
        hidden_size=width, intermediate_size=4 * width, num_attention_heads=width // 32, num_hidden_layers=1
    )
    torch.manual_seed(0)
    model = Wav2Vec2BertModel(config).eval()
    models = {dtype: Wav2Vec2BertModel(config).eval().to(dtype) for dtype in DTYPES}
    for one in models.values():
        one.load_state_dict(model.state_dict())
    frames = torch.randn(sum(lengths), config.feature_projection_input_dim)
    taken: dict[torch.dtype, list[float]] = {dtype: [] for dtype in DTYPES}
    with torch.inference_mode():
        for _ in range(repeats + 1):
            for dtype, one in models.items():
                started = time.process_time()
                one.encode(Packed(frames.to(dtype), lengths))
                taken[dtype].append(1000 * (time.process_time() - started))
    return {dtype: statistics.median(times[1:]) for dtype, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--date", required=True)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = ["# float32 against bfloat16, by width", "", describe(args.date), ""]
    lines += ["One layer, milliseconds.", "", "| width | clips × frames | float32 | bfloat16 | bfloat16 is |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for width in WIDTHS:
        for lengths in PACKS:
            found = race(width, lengths, args.repeats)
            single, half = (found[dtype] for dtype in DTYPES)
            shape = f"{len(lengths)} × {min(lengths)}" + (
                f" to {max(lengths)}" if len(set(lengths)) > 1 else ""
            )
            lines.append(f"| {width} | {shape} | {single:.1f} | {half:.1f} | {single / half:.2f} x as fast |")
    text = "\n".join([*lines, ""])
    print(text)
    if args.output is not None:
        args.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
