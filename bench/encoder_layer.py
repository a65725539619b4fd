"""Race one encoder layer of full width against the peer: medians of interleaved runs.

    python -m bench.encoder_layer --threads 1 --date 2026-11-23 --output bench/results/encoder-cpu.md

Both sides have the same random weights and take the same padded batch and mask. The frames of all
contenders are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
import transformers

from bench.machine import describe
from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.model import Wav2Vec2BertModel

CASES: dict[str, list[int]] = {
    "1 clip, 500 frames": [500],
    "1 clip, 1000 frames": [1000],
    "1 clip, 2000 frames": [2000],
    "8 clips, 125-500 frames": [500 * (k + 1) // 8 for k in range(1, 8)] + [500],
    "8 clips, 250-1000 frames": [1000 * (k + 1) // 8 for k in range(1, 8)] + [1000],
    "32 clips, 50-250 frames": [50 + 200 * k // 31 for k in range(32)],
}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.2}


def contenders(dtype: torch.dtype) -> dict[str, torch.nn.Module]:
    """The peer's two attention paths and ours, with the same weights."""
    config = Wav2Vec2BertConfig(num_hidden_layers=1)
    torch.manual_seed(0)
    ours = Wav2Vec2BertModel(config).eval().to(dtype)
    models: dict[str, torch.nn.Module] = {}
    for implementation in ("eager", "sdpa"):
        peer = transformers.Wav2Vec2BertModel(transformers.Wav2Vec2BertConfig.from_dict(config.to_dict()))
        peer = peer.eval().to(dtype)
        peer.load_state_dict(ours.state_dict())
        peer.set_attn_implementation(implementation)
        models[f"peer {implementation}"] = peer
    return {**models, "ours": ours}


def race(dtype: torch.dtype, lengths: list[int], repeats: int) -> tuple[dict[str, float], float]:
    """Median milliseconds of each contender, and the largest difference of ours to the peer's sdpa path."""
    features = torch.randn(len(lengths), max(lengths), 160).to(dtype)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    models = contenders(dtype)
    results = {
        name: model(features, attention_mask=mask).last_hidden_state[mask] for name, model in models.items()
    }
    difference = (results["ours"] - results["peer sdpa"]).abs().max().item()
    if difference > TOLERANCE[dtype]:
        raise RuntimeError(f"ours differs from the peer by {difference:.1e} in {dtype}")
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(repeats):
        for name, model in models.items():
            start = time.perf_counter()
            model(features, attention_mask=mask)
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}, difference


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--date", required=True)
    parser.add_argument("--output", type=Path, required=True, help="markdown file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    lines = ["# One encoder layer, width 1024, `relative_key`", "", describe(args.date), ""]
    lines += [f"Median of {args.repeats} interleaved runs, milliseconds.", ""]
    for dtype in (torch.float32, torch.bfloat16):
        lines += [f"## {str(dtype).removeprefix('torch.')}", ""]
        lines += ["| batch | peer eager | peer sdpa | ours | against the faster peer | max difference |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        for name, lengths in CASES.items():
            times, difference = race(dtype, lengths, args.repeats)
            best = min(times["peer eager"], times["peer sdpa"])
            cells = [f"{times[key]:.0f}" for key in ("peer eager", "peer sdpa", "ours")]
            cells += [f"{best / times['ours']:.2f} x", f"{difference:.0e}"]
            lines.append(f"| {name} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
        lines.append("")
    args.output.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
