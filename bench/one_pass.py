"""What four annotations cost over transcripts alone, when their checkpoints share a backbone.

    python -m bench.one_pass --layers 24 --date 2026-11-24 --output bench/results/one-pass.md

Both jobs run whole, from shards to Parquet, in alternation and in one process; the checkpoints have the
published widths and random weights.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from bench.machine import describe
from pipeline.cluster import connect
from pipeline.run import run
from pipeline.spec import AnnotateSpec, JobSpec, TranscribeSpec
from w2vbert import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2BertForXVector,
)

ROOT = Path(__file__).resolve().parent.parent
HEADS: dict[str, tuple[Any, dict[str, Any]]] = {
    "transcribe": (Wav2Vec2BertForCTC, {"vocab_size": 20}),
    "classify": (Wav2Vec2BertForSequenceClassification, {"num_labels": 100}),
    "diarize": (Wav2Vec2BertForAudioFrameClassification, {"num_labels": 4}),
    "embed": (Wav2Vec2BertForXVector, {"num_labels": 10}),
}


def make_checkpoints(home: Path, layers: int) -> dict[str, str]:
    """Four checkpoints of one random backbone."""
    encoder = None
    places = {}
    for task, (kind, fields) in HEADS.items():
        torch.manual_seed(0)
        model = kind(Wav2Vec2BertConfig(num_hidden_layers=layers, **fields))
        encoder = encoder or model.wav2vec2_bert
        model.wav2vec2_bert = encoder
        model.save_pretrained(home / task)
        SeamlessM4TFeatureExtractor().save_pretrained(home / task)
        for name in ("vocab.json", "tokenizer_config.json"):
            shutil.copyfile(ROOT / "demo/checkpoint" / name, home / task / name)
        places[task] = str(home / task)
    return places


def make_corpus(home: Path, seconds: float) -> float:
    """Clips of 3 to 15 s cut from the demo's recording; the seconds of them all."""
    home.mkdir()
    sound, rate = soundfile.read(ROOT / "demo/audio/session.flac", dtype="float32")
    sound = np.tile(sound, 3)
    rng = np.random.default_rng(0)
    total = 0.0
    while total < seconds:
        length = int(rng.uniform(3, 15) * rate)
        start = int(rng.integers(0, len(sound) - length))
        soundfile.write(home / f"{round(total * 1000):09}.flac", sound[start : start + length], rate)
        total += length / rate
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--date", required=True)
    parser.add_argument("--output", type=Path, required=True, help="markdown file")
    args = parser.parse_args()
    connect("local")
    with tempfile.TemporaryDirectory() as work:
        home = Path(work)
        models = make_checkpoints(home / "models", args.layers)
        audio_s = make_corpus(home / "corpus", args.seconds)
        measured: dict[str, dict[str, list[float]]] = {}
        for repeat in range(args.repeats + 1):  # the first round warms caches
            for name in ("transcribe", "annotate"):
                place = {"input": [str(home / "corpus")], "output": str(home / f"{name}-{repeat}")}
                spec: JobSpec = (
                    TranscribeSpec(**place, model=models["transcribe"])
                    if name == "transcribe"
                    else AnnotateSpec(**place, **models)
                )
                summary = run(spec)
                assert summary["errors"] == {}, summary["errors"]
                if repeat:
                    figures = measured.setdefault(name, {})
                    figures.setdefault("wall s", []).append(summary["wall_s"])
                    figures.setdefault("model s", []).append(summary["encoder_s"])
                    figures.setdefault("passes", []).append(summary["encoder"]["passes"])
    lines = ["# Four annotations against transcripts alone", "", describe(args.date), ""]
    lines += [
        f"{args.layers} layers of width 1024, float32, random weights; {audio_s:.0f} s of audio in clips of 3"
        f" to 15 s; medians of {args.repeats} alternating runs of the whole job. Model seconds: encoder and "
        "heads.",
        "",
        "| | transcribe | annotate, four heads | ratio | ratio of each pair |",
        "| --- | --- | --- | --- | --- |",
    ]
    for figure in ("wall s", "model s", "passes"):
        one, four = measured["transcribe"][figure], measured["annotate"][figure]
        ratios = [b / a for a, b in zip(one, four, strict=True)]
        lines.append(
            f"| {figure} | {statistics.median(one):.1f} | {statistics.median(four):.1f} | "
            f"{statistics.median(ratios):.2f} | {', '.join(f'{ratio:.2f}' for ratio in ratios)} |"
        )
    print("\n".join(lines))
    args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
