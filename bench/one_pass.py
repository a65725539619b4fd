"""What four annotations cost over transcripts alone, when their checkpoints share a backbone.

    python -m bench.one_pass --layers 24 --date 2026-11-24 --output bench/results/one-pass.md

Whole jobs, `jobs/transcribe.py` and `jobs/annotate.py`, in alternation, each in a process and a Ray cluster
of its own. The checkpoints have the published widths and random weights.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import soundfile
import torch

from bench.machine import describe
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


@dataclass
class Timings:
    """Seconds of the runs of one job: from start to end, and of its models alone."""

    wall: list[float] = field(default_factory=list)
    models: list[float] = field(default_factory=list)


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


def make_corpus(home: Path, seconds: float) -> tuple[int, float]:
    """Clips of 3 to 15 s cut from the demo's recording: how many, and their seconds."""
    home.mkdir()
    sound, rate = soundfile.read(ROOT / "demo/audio/session.flac", dtype="float32")
    sound = np.tile(sound, 3)
    rng = np.random.default_rng(0)
    clips, total = 0, 0.0
    while total < seconds:
        length = int(rng.uniform(3, 15) * rate)
        start = int(rng.integers(0, len(sound) - length))
        soundfile.write(home / f"{clips:05}.flac", sound[start : start + length], rate)
        clips, total = clips + 1, total + length / rate
    return clips, total


def run(job: str, models: list[str], corpus: Path, output: Path, clips: int) -> tuple[float, float]:
    """Seconds of the whole job, and of its models."""
    command = [sys.executable, f"jobs/{job}.py", *models, "--ray-address", "local"]
    command += ["--input", str(corpus), "--output", str(output), "--overwrite"]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    query = f"SELECT count(*) - count(error), sum(encoder_s) FROM '{output}/*.parquet'"
    ((annotated, of_models),) = duckdb.execute(query).fetchall()
    assert annotated == clips, annotated
    return seconds, of_models


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=120.0, help="of audio")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--date", required=True)
    parser.add_argument("--output", type=Path, required=True, help="markdown file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        home = Path(work)
        models = make_checkpoints(home / "models", args.layers)
        clips, audio_s = make_corpus(home / "corpus", args.seconds)
        jobs = {
            "transcribe": ["--model", models["transcribe"]],
            "annotate": [part for task, place in models.items() for part in (f"--{task}", place)],
        }
        timings = {job: Timings() for job in jobs}
        for repeat in range(args.repeats + 1):  # the first round warms the file cache
            for job, flags in jobs.items():
                wall, of_models = run(job, flags, home / "corpus", home / "out" / job, clips)
                print(f"{job}: {wall:.1f} s, models {of_models:.1f} s", flush=True)
                if repeat:
                    timings[job].wall.append(wall)
                    timings[job].models.append(of_models)
    lines = ["# Four annotations against transcripts alone", "", describe(args.date), ""]
    lines += [
        f"{args.layers} layers of width 1024, float32, random weights; {audio_s:.0f} s of audio in {clips} "
        f"clips of 3 to 15 s; whole jobs in alternation, medians of {args.repeats}. The wall time has the "
        "start of Ray and the reading of the checkpoints in it, of which `annotate` has four.",
        "",
        "| | transcribe | annotate, four heads | ratio | ratio of each pair |",
        "| --- | --- | --- | --- | --- |",
        row("wall time", timings["transcribe"].wall, timings["annotate"].wall),
        row("seconds of the models", timings["transcribe"].models, timings["annotate"].models),
    ]
    print("\n".join(lines))
    args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def row(name: str, one: list[float], four: list[float]) -> str:
    ratios = [b / a for a, b in zip(one, four, strict=True)]
    cells = [f"{statistics.median(one):.1f} s", f"{statistics.median(four):.1f} s"]
    cells += [f"{statistics.median(ratios):.2f}", ", ".join(f"{ratio:.2f}" for ratio in ratios)]
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
