"""Peak memory of one encoder layer of full width, ours and the peer's, each run in a process of its own.

    python -m bench.attention_memory --date 2026-11-23 --output bench/results/attention-memory.md

The peak is the resident set of the whole process (interpreter, libraries, weights, activations). A
contender whose largest tensors alone would pass `--limit-gb` is not started.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from bench.machine import describe
from w2vbert.config import Wav2Vec2BertConfig

FRAMES = (1000, 2000, 4000, 15000, 90000)
WHO = ("peer", "ours")
GB = 1e9


def measure(who: str, frames: int, positions: str | None) -> None:
    """Run one forward pass and print peak resident bytes and seconds; meant for a fresh process."""
    torch.manual_seed(0)
    config = Wav2Vec2BertConfig(num_hidden_layers=1, position_embeddings_type=positions)
    model: torch.nn.Module
    if who == "ours":
        from w2vbert.model import Wav2Vec2BertModel

        model = Wav2Vec2BertModel(config).eval()
    else:
        import transformers

        model = transformers.Wav2Vec2BertModel(transformers.Wav2Vec2BertConfig.from_dict(config.to_dict()))
        model.eval()
    features = torch.randn(1, frames, 160)
    start = time.perf_counter()
    with torch.inference_mode():
        assert model(features).last_hidden_state.isfinite().all()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(peak, seconds)


def peer_needs(frames: int, positions: str | None) -> float:
    """Bytes of the peer's largest tensors that exist together, to tell what cannot be tried."""
    config = Wav2Vec2BertConfig()
    bias = config.num_attention_heads * frames**2 * 4
    if positions == "relative_key":  # embeddings and indices of all distances, products, scaled products
        return frames**2 * (config.head_size * 4 + 8) + 2 * bias
    if positions == "relative":  # products with all distances, and the copy that is shifted
        return 4 * bias
    return 0.0


def run(who: str, frames: int, positions: str | None) -> tuple[float, float]:
    """Peak gigabytes and seconds of one contender in a fresh process."""
    command = [sys.executable, "-m", "bench.attention_memory", "--measure", who, str(frames), str(positions)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    peak, seconds = result.stdout.split()[-2:]
    return float(peak) / GB, float(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", nargs=3, metavar=("WHO", "FRAMES", "POSITIONS"), help=argparse.SUPPRESS)
    parser.add_argument("--frames", type=int, nargs="+", default=list(FRAMES))
    parser.add_argument("--positions", nargs="+", default=["relative_key"])
    parser.add_argument("--limit-gb", type=float, default=12.0)
    parser.add_argument("--date", default="undated")
    parser.add_argument("--output", type=Path, help="markdown file; only printed when omitted")
    args = parser.parse_args()
    if args.measure:
        who, frames, positions = args.measure
        measure(who, int(frames), None if positions == "None" else positions)
        return

    lines = ["# Peak memory of one encoder layer, width 1024, fp32, one clip", "", describe(args.date), ""]
    lines += ["Resident set of the whole process, and time of the pass.", ""]
    lines += ["| positions | frames | audio | peer | ours | peer | ours |", "| --- " * 7 + "|"]
    for scheme in args.positions:
        positions = None if scheme == "None" else scheme
        for frames in args.frames:
            peaks, seconds = [], []
            for who in WHO:
                least = peer_needs(frames, positions) / GB
                if who == "peer" and least > args.limit_gb:
                    peaks.append(f"(over {least:.0f} GB, not run)")
                    seconds.append("")
                    continue
                peak, spent = run(who, frames, positions)
                peaks.append(f"{peak:.2f} GB")
                seconds.append(f"{spent:.1f} s")
            audio = f"{frames / 50:.0f} s" if frames < 6000 else f"{frames / 3000:.0f} min"
            lines.append(f"| `{scheme}` | {frames} | {audio} | {' | '.join(peaks + seconds)} |")
            print(lines[-1], flush=True)
    if args.output is not None:
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
