"""What a clip costs in the stages themselves, without the engine: processor time of one thread.

    python -m bench.stages --date 2026-11-28 --output bench/results/stages.md

The featurizer (decode, resample, features, their table) and the model actor (packs, the demo's checkpoints,
decoding, the table) on clips of 0.44 s and of 15 s, cut from the demo's speech. Of the model actor's time
that of encoder and heads is told apart: the rest is what is paid for each clip, whatever the model.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
import torch
import torchaudio

from bench.machine import describe
from pipeline.annotate.stage import Annotator
from pipeline.features.stage import Featurizer
from pipeline.job import Job, prepare
from pipeline.schema import output_schema, read_schema
from pipeline.spec import AnnotateSpec

ROOT = Path(__file__).resolve().parent.parent
ALL_HEADS = {"transcribe": "checkpoint", "classify": "classify", "diarize": "diarize", "embed": "embed"}
AUDIO = (
    ("WAV", 16_000),
    ("FLAC", 16_000),
    ("FLAC", 8_000),
    ("FLAC", 44_100),
    ("MP3", 44_100),
    ("OGG", 48_000),
)
NOTHING = pa.schema([])


def job_of(heads: Mapping[str, str]) -> Job:
    models = {task: str(ROOT / "demo" / folder) for task, folder in heads.items()}
    spec = AnnotateSpec(input=["nothing"], output="nowhere", dtype="float32", **models)
    return prepare(spec, print)


def clips(seconds: float, count: int, kind: str, rate: int) -> pa.Table:
    """Clips as the read stage hands them on."""
    parts = [soundfile.read(file, dtype="float32") for file in sorted((ROOT / "demo/audio").glob("*.flac"))]
    speech = np.concatenate([samples for samples, of_rate in parts if of_rate == 16_000])
    speech = torchaudio.functional.resample(torch.from_numpy(speech), 16_000, rate).numpy()
    length = round(seconds * rate)
    speech = np.tile(speech, -(-2 * length // len(speech)))
    starts = np.random.default_rng(0).integers(0, len(speech) - length, count)
    rows = []
    for number, start in enumerate(starts):
        buffer = io.BytesIO()
        subtype = "OPUS" if rate == 48_000 and kind == "OGG" else None
        soundfile.write(buffer, speech[start : start + length], rate, format=kind, subtype=subtype)
        rows.append({"clip_id": f"{number:06}", "shard": "s", "audio": buffer.getvalue()})
    return pa.Table.from_pylist(rows, schema=read_schema(NOTHING))


def features(featurizer: Featurizer, table: pa.Table) -> tuple[pa.Table, float]:
    """Of all clips, and the seconds that it took."""
    list(featurizer(table.slice(0, 4)))
    started = time.process_time()
    found = list(featurizer(table))
    return pa.concat_tables(found), time.process_time() - started


def annotate(job: Job, table: pa.Table) -> tuple[float, float]:
    """Seconds in all, and those of the encoder and its heads."""
    backbones = [dict(held.checkpoints) for held in job.backbones]
    stage = Annotator(backbones, job.settings, output_schema(NOTHING, job.columns))
    stage(table.slice(0, 4))
    started = time.process_time()
    found = stage(table)
    spent = time.process_time() - started
    if any(error is not None for error in found["error"].to_pylist()):
        raise SystemExit("a clip became an error row")
    return spent, sum(found["encoder_s"].to_pylist())


def lines(counts: Sequence[tuple[float, int]]) -> list[str]:
    found = ["| stage | clips | ms a clip | times real time |", "| --- | --- | --- | --- |"]
    jobs = {"transcribe": job_of({"transcribe": "checkpoint"}), "four heads": job_of(ALL_HEADS)}
    featurizer = jobs["transcribe"].featurizer(NOTHING)()

    def row(stage: str, what: str, seconds: float, count: int, spent: float) -> str:
        each = f"{1000 * spent / count:.2f}"
        return f"| {stage} | {count} of {seconds:g} s{what} | {each} | {seconds * count / spent:,.0f} |"

    for seconds, count in counts:
        for kind, rate in AUDIO:
            _, spent = features(featurizer, clips(seconds, count, kind, rate))
            found.append(row("features", f", {kind} {rate / 1000:g} kHz", seconds, count, spent))
    for seconds, count in counts:
        table, _ = features(featurizer, clips(seconds, count, "WAV", 16_000))
        for name, job in jobs.items():
            spent, encoder_s = annotate(job, table)
            found.append(row(f"{name}, model and heads", "", seconds, count, encoder_s))
            found.append(row(f"{name}, all else", "", seconds, count, max(spent - encoder_s, 1e-9)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--date", required=True)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--short", type=int, default=1000, help="number of clips of 0.44 s")
    parser.add_argument("--long", type=int, default=40, help="number of clips of 15 s")
    args = parser.parse_args()
    torch.set_num_threads(1)
    table = lines([(0.44, args.short), (15.0, args.long)])
    text = "\n".join(["# Clips in the stages", "", describe(args.date), "", *table, ""])
    print(text)
    if args.output is not None:
        args.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
