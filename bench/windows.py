"""Word error rate and cost by window length and overlap, on long recordings of joined utterances.

    python -m bench.windows --model CHECKPOINT --speech FOLDER --speech FOLDER --date 2026-11-24 \
        --output bench/results/windows.md

A FOLDER holds audio files and a `labels.tsv` with the columns path, speaker and text. The utterances of each
speaker are joined, in random order and with pauses of 0.1 to 0.6 s, to recordings of `--minutes`. The cost is
that of encoder layers of full width over one recording, relative to the cheapest. Differences from the jobs'
defaults come with the 95 % interval of a paired bootstrap over recordings (Bisani and Ney, "Bootstrap
estimates for confidence intervals in ASR performance evaluation", 2004).
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import jiwer
import numpy as np
import torch

from bench.machine import describe
from pipeline.audio import recording as audio
from pipeline.features.windows import WindowPlan
from pipeline.spec.parts import ComputeSpec
from pipeline.tasks.transcribe import best_seam
from w2vbert import SeamlessM4TFeatureExtractor, Wav2Vec2BertForCTC, Wav2Vec2BertModel, Wav2Vec2BertProcessor
from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.decoding.greedy import best_path, read_path
from w2vbert.packing import Packed

WINDOWS_S = (10, 20, 30, 40, 60, 120)
OVERLAPS_S = (0, 0.5, 1, 2, 4)
PAUSE_S = (0.1, 0.6)
ONE_PIECE = WindowPlan(10**9, 0)
DEFAULT = tuple(ComputeSpec.model_fields[name].default for name in ("window_s", "overlap_s"))
Recording = tuple[np.ndarray, str]


def recordings(folders: Sequence[Path], seconds: float) -> list[Recording]:
    """(samples at 16 kHz, text) of one speaker each and about `seconds` long."""
    rng = np.random.default_rng(0)
    spoken: dict[str, list[tuple[Path, str]]] = defaultdict(list)
    for folder in folders:
        with (folder / "labels.tsv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                spoken[row["speaker"]].append((folder / row["path"], row["text"]))
    found: list[Recording] = []
    for utterances in spoken.values():
        samples: list[np.ndarray] = []
        words: list[str] = []
        for index in rng.permutation(len(utterances)):
            path, text = utterances[index]
            pause = int(rng.uniform(*PAUSE_S) * 16000)
            samples += [audio.decode(path.read_bytes()).samples, faint_noise(rng, pause)]
            words.append(text)
            if sum(map(len, samples)) >= seconds * 16000:
                found.append((np.concatenate(samples), " ".join(words)))
                samples, words = [], []
    return found


def faint_noise(rng: np.random.Generator, length: int) -> np.ndarray:
    return np.float32(1e-4) * rng.standard_normal(length).astype("f4")


@torch.inference_mode()
def transcribe(
    model: Wav2Vec2BertForCTC, processor: Wav2Vec2BertProcessor, features: np.ndarray, plan: WindowPlan
) -> str:
    """The text of one recording, stitched as the job does it."""
    ids, posteriors = np.zeros(len(features), np.int64), np.ones(len(features), np.float32)
    end = 0
    for start, stop in plan.cut(0, len(features)):
        packed = Packed(torch.from_numpy(features[start:stop].copy()), (stop - start,))
        path, posterior = best_path(model.frame_logits(model.wav2vec2_bert.encode(packed)).frames)
        first = start + (
            best_seam(ids[start:end], path.numpy()[: end - start], enough=10) if start < end else 0
        )
        ids[first:stop] = path.numpy()[first - start :]
        posteriors[first:stop] = posterior.numpy()[first - start :]
        end = stop
    return read_path(ids, posteriors, processor.tokenizer).text


def word_errors(reference: str, text: str) -> int:
    counts = jiwer.process_words(reference, text)
    return counts.substitutions + counts.deletions + counts.insertions


def difference(errors: np.ndarray, base: np.ndarray, words: np.ndarray) -> str:
    """Points of word error rate above `base`, with the 95 % interval of resampled recordings.

    errors, base, words: (recordings,) counts.
    """
    picked = np.random.default_rng(0).integers(len(words), size=(10_000, len(words)))
    points = 100 * (errors - base)[picked].sum(1) / words[picked].sum(1)
    low, high = np.percentile(points, (2.5, 97.5))
    return f"{100 * (errors - base).sum() / words.sum():+.1f} ({low:+.1f} to {high:+.1f})"


@torch.inference_mode()
def costs(plans: Sequence[WindowPlan], frames: int, repeats: int = 5) -> list[float]:
    """Seconds of an encoder layer of full width over so many frames, for each plan; medians.

    One window is measured for all of its plan, as their lengths are nearly equal.
    """
    torch.manual_seed(0)
    model = Wav2Vec2BertModel(Wav2Vec2BertConfig(num_hidden_layers=1)).eval()
    features = torch.randn(frames, 160)
    seconds: list[list[float]] = [[] for _ in plans]
    for repeat in range(repeats + 1):  # the first round warms up
        for plan, times in zip(plans, seconds, strict=True):
            windows = plan.cut(0, frames)
            start, stop = windows[0]
            started = time.perf_counter()
            model.encode(Packed(features[start:stop], (stop - start,)))
            if repeat:
                times.append((time.perf_counter() - started) * len(windows))
    return [statistics.median(times) for times in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--speech", type=Path, required=True, action="append")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=2)
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
    words = np.array([len(text.split()) for text in references])

    def errors(plan: WindowPlan) -> np.ndarray:
        texts = [transcribe(model, processor, frames, plan) for frames in features]
        return np.array([word_errors(*pair) for pair in zip(references, texts, strict=True)])

    plans = {
        (window, overlap): WindowPlan(window * 50, round(overlap * 50))
        for window in WINDOWS_S
        for overlap in OVERLAPS_S
    }
    seconds = dict(zip(plans, costs(list(plans.values()), round(args.minutes * 3000)), strict=True))
    cheapest = min(seconds.values())
    lines = ["# Windows: word error rate and cost", "", describe(args.date), ""]
    lines += [
        f"{len(speech)} recordings of about {args.minutes:g} min, {words.sum()} words; window by rows, "
        "overlap by columns; word error rate, and in brackets the cost relative to the cheapest.",
        "",
        "| window | " + " | ".join(f"{overlap:g} s" for overlap in OVERLAPS_S) + " |",
        "| --- " * (len(OVERLAPS_S) + 1) + "|",
    ]
    found: dict[tuple[float, float], np.ndarray] = {}
    for window in WINDOWS_S:
        cells = []
        for overlap in OVERLAPS_S:
            key = (window, overlap)
            found[key] = errors(plans[key])
            cells.append(f"{found[key].sum() / words.sum():.1%} ({seconds[key] / cheapest:.2f})")
        lines.append(f"| {window} s | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    whole = errors(ONE_PIECE)
    base = found[DEFAULT]
    lines += [
        "",
        f"In one piece: {whole.sum() / words.sum():.1%}.",
        "",
        f"Points of word error rate above those of {DEFAULT[0]:g} s with {DEFAULT[1]:g} s, and the "
        "95 % interval:",
        "",
        "| window | overlap | difference |",
        "| --- | --- | --- |",
    ]
    for plan, counts in found.items():
        if (plan[0] == DEFAULT[0]) != (plan[1] == DEFAULT[1]):
            lines.append(f"| {plan[0]:g} s | {plan[1]:g} s | {difference(counts, base, words)} |")
    lines.append(f"| one piece | | {difference(whole, base, words)} |")
    print("\n".join(lines))
    args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
