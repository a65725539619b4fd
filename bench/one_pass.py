"""What four annotations cost over transcripts alone, when their checkpoints share a backbone.

    python -m bench.one_pass --layers 24 --date 2026-11-24 --output bench/results/one-pass.md

The model actors of both jobs work on the same features, in alternation and in one process; the checkpoints
have the published widths and random weights.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
import torch

from bench.machine import describe
from pipeline.annotate import Annotator
from pipeline.featurize import Featurizer
from pipeline.graph import configs
from pipeline.heads import columns_of
from pipeline.models import read_backbones
from pipeline.resources import DecodingFiles
from pipeline.schema import Clip, output_schema, read_table
from pipeline.spec import AnnotateSpec, JobSpec, TranscribeSpec
from pipeline.storage import Storage, StorageOptions
from pipeline.windows import WindowPlan
from w2vbert import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2BertForXVector,
)

STORAGE = Storage(StorageOptions())
NOTHING = pa.schema([])  # carried along
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
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--date", required=True)
    parser.add_argument("--output", type=Path, required=True, help="markdown file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        home = Path(work)
        models = make_checkpoints(home / "models", args.layers)
        audio_s = make_corpus(home / "corpus", args.seconds)
        place = {"input": [str(home / "corpus")], "output": str(home / "out")}
        features = featurized(home / "corpus")
        actors = {
            "one": actor(TranscribeSpec(**place, model=models["transcribe"]), args.threads),
            "four": actor(AnnotateSpec(**place, **models), args.threads),
        }
        seconds: dict[str, list[float]] = {name: [] for name in actors}
        for repeat in range(args.repeats + 1):  # the first round warms caches
            for name, annotate in actors.items():
                started = time.perf_counter()
                table = annotate(features)
                if repeat:
                    seconds[name].append(time.perf_counter() - started)
                assert table["error"].null_count == len(table)
    ratios = [four / one for one, four in zip(seconds["one"], seconds["four"], strict=True)]
    lines = ["# Four annotations against transcripts alone", "", describe(args.date), ""]
    lines += [
        f"{args.layers} layers of width 1024, float32, random weights; {audio_s:.0f} s of audio in "
        f"{len(features)} clips of 3 to 15 s; medians of {args.repeats} alternating calls of the model actor,"
        " from features to columns. The other stages of the jobs are the same, so the ratio of whole jobs is "
        "nearer to 1.",
        "",
        "| transcribe | annotate, four heads | ratio | ratio of each pair |",
        "| --- | --- | --- | --- |",
        f"| {statistics.median(seconds['one']):.1f} s | {statistics.median(seconds['four']):.1f} s | "
        f"{statistics.median(ratios):.2f} | {', '.join(f'{ratio:.2f}' for ratio in ratios)} |",
    ]
    print("\n".join(lines))
    args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def featurized(corpus: Path) -> pa.Table:
    """The corpus as the CPU stage hands it on."""
    clips = [Clip(file.name, str(file), audio=file.read_bytes()) for file in sorted(corpus.iterdir())]
    featurizer = Featurizer(
        SeamlessM4TFeatureExtractor(),
        STORAGE,
        NOTHING,
        channel="mean",
        max_duration_s=None,
        half=False,
        plan=WindowPlan(2000, 200),
        vad=None,
    )
    return pa.concat_tables(featurizer(read_table(clips, NOTHING)))


def actor(spec: JobSpec, threads: int) -> Annotator:
    """The model actor of a job, in this process."""
    backbones = read_backbones(spec, STORAGE)
    (checkpoints,) = (backbone.checkpoints for backbone in backbones)  # one encoder for all
    schema = output_schema(NOTHING, columns_of(spec, configs(backbones)))
    return Annotator([checkpoints], spec, DecodingFiles(), schema, threads=threads)


if __name__ == "__main__":
    main()
