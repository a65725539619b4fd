"""Word error rate and cost by window length and overlap, on long recordings of joined utterances.

    python -m bench.windows --model CHECKPOINT --speech FOLDER --date 2026-11-24 --output windows.md

FOLDER holds audio files and a `labels.tsv` with the columns path and text. Utterances are joined in order to
recordings of `--minutes`, with short pauses. The cost is that of one encoder layer of full width, for a
recording of `--minutes`, relative to the cheapest window.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import jiwer
import numpy as np
import torch

from bench.machine import describe
from pipeline import audio
from pipeline.windows import WindowPlan
from w2vbert import SeamlessM4TFeatureExtractor, Wav2Vec2BertForCTC, Wav2Vec2BertModel, Wav2Vec2BertProcessor
from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.ctc import best_path, read_path
from w2vbert.packing import Packed

WINDOWS_S = (10, 20, 30, 40, 60, 120)
OVERLAPS_S = (0, 1, 2, 4, 8)
Recording = tuple[np.ndarray, str]


def recordings(folder: Path, seconds: float) -> list[Recording]:
    """Joined utterances, (samples at 16 kHz, text), each about `seconds` long."""
    rng = np.random.default_rng(0)
    with (folder / "labels.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    found: list[Recording] = []
    samples: list[np.ndarray] = []
    words: list[str] = []
    for row in rows:
        samples.append(audio.decode((folder / row["path"]).read_bytes()).samples)
        samples.append(np.float32(1e-4) * rng.standard_normal(int(rng.uniform(0.2, 1) * 16000)).astype("f4"))
        words.append(row["text"])
        if sum(len(part) for part in samples) >= seconds * 16000:
            found.append((np.concatenate(samples), " ".join(words)))
            samples, words = [], []
    if samples and not found:
        found.append((np.concatenate(samples), " ".join(words)))
    return found


@torch.inference_mode()
def transcribe(
    model: Wav2Vec2BertForCTC, processor: Wav2Vec2BertProcessor, features: np.ndarray, plan: WindowPlan
) -> str:
    """The text of one recording, stitched as the job does it."""
    from pipeline.heads.transcript import best_seam

    ids, posteriors = np.zeros(len(features), np.int64), np.ones(len(features), np.float32)
    end = 0
    for start, stop in plan.cut(0, len(features)):
        packed = Packed(torch.from_numpy(features[start:stop].copy()), (stop - start,))
        path, posterior = best_path(model.frame_logits(model.wav2vec2_bert.encode(packed)).frames)
        first = start + (best_seam(ids[start:end], path.numpy()[: end - start]) if start < end else 0)
        ids[first:stop] = path.numpy()[first - start :]
        posteriors[first:stop] = posterior.numpy()[first - start :]
        end = stop
    return read_path(ids, posteriors, processor.tokenizer).text


@torch.inference_mode()
def cost(plan: WindowPlan, frames: int) -> float:
    """Seconds of one layer of full width over a recording of so many frames."""
    torch.manual_seed(0)
    model = Wav2Vec2BertModel(Wav2Vec2BertConfig(num_hidden_layers=1)).eval()
    windows = plan.cut(0, frames)
    length = windows[0][1] - windows[0][0]
    packed = Packed(torch.randn(length, 160), (length,))
    model.encode(packed)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        model.encode(packed)
        times.append(time.perf_counter() - started)
    return sorted(times)[1] * len(windows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--date", required=True)
    parser.add_argument("--output", type=Path, required=True, help="markdown file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    model = Wav2Vec2BertForCTC.from_pretrained(args.model)
    processor = Wav2Vec2BertProcessor.from_pretrained(args.model)
    extractor = SeamlessM4TFeatureExtractor.from_pretrained(args.model)
    speech = recordings(args.speech, args.minutes * 60)
    features = [extractor.extract(samples) for samples, _ in speech]
    references = [text for _, text in speech]
    total = sum(len(text.split()) for text in references)
    lines = ["# Windows: word error rate and cost", "", describe(args.date), ""]
    lines += [
        f"{len(speech)} recordings of about {args.minutes:g} min, {total} words; window by rows, overlap by "
        "columns.",
        "",
        "| window | " + " | ".join(f"{overlap} s" for overlap in OVERLAPS_S) + " | cost at 4 s |",
        "| --- " * (len(OVERLAPS_S) + 2) + "|",
    ]
    costs = {}
    table: dict[int, list[str]] = {}
    for window in WINDOWS_S:
        cells = []
        for overlap in OVERLAPS_S:
            if overlap > window / 2:
                cells.append("")
                continue
            plan = WindowPlan(window * 50, overlap * 50)
            texts = [transcribe(model, processor, frames, plan) for frames in features]
            cells.append(f"{jiwer.wer(references, texts):.2%}")
        table[window] = cells
        costs[window] = cost(WindowPlan(window * 50, 200), round(args.minutes * 3000))
        print(window, cells, f"{costs[window]:.1f} s", flush=True)
    cheapest = min(costs.values())
    for window, cells in table.items():
        lines.append(f"| {window} s | {' | '.join(cells)} | {costs[window] / cheapest:.2f} |")
    whole = WindowPlan(10**9, 0)
    texts = [transcribe(model, processor, frames, whole) for frames in features]
    lines += ["", f"In one piece: {jiwer.wer(references, texts):.2%}."]
    print("\n".join(lines))
    args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
