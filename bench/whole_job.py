"""Whole jobs, from Parquet shards to a table of transcripts: ours, the engine's example and a pipeline.

    python -m bench.whole_job --date 2026-11-28 --sizes 300 1200
    python -m bench.whole_job --date 2026-11-28 --sizes 2700 13500 --long 300 --output whole-job.md

In alternation, each in processes of its own, on clips of 0.44 s (and of 15 s) cut from the demo's speech:

- `jobs/transcribe.py`;
- the shape that the engine's documentation gives for audio (decode row by row, an actor for features, one
  for the model, batches of 32), with the peer's classes;
- `transformers.pipeline` in one process, batches of 32.

All with the demo's checkpoint in float32. The time of one more clip is the difference of two sizes.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from bench.machine import describe
from bench.spent import Spent, spend

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "demo/checkpoint"
SHORT_S, LONG_S, RATE = 0.44, 15.0, 16_000
CLIPS_IN_A_SHARD = 500
PEER = """
import io, logging, os, sys
import numpy as np, ray, soundfile, torch
from transformers import AutoProcessor, Wav2Vec2BertForCTC

def decode(row):
    samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
    return {"path": row["audio"]["path"], "samples": samples}

class Features:
    def __init__(self, checkpoint):
        self.processor = AutoProcessor.from_pretrained(checkpoint)
    def __call__(self, batch):
        found = self.processor(list(batch["samples"]), sampling_rate=16000, return_tensors="np")
        return {"path": batch["path"], "features": found["input_features"], "mask": found["attention_mask"]}

class Model:
    def __init__(self, checkpoint):
        torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
        self.processor = AutoProcessor.from_pretrained(checkpoint)
        self.model = Wav2Vec2BertForCTC.from_pretrained(checkpoint).eval()
    @torch.inference_mode()
    def __call__(self, batch):
        features, mask = (torch.from_numpy(np.stack(batch[name])) for name in ("features", "mask"))
        ids = self.model(input_features=features, attention_mask=mask).logits.argmax(-1)
        return {"path": batch["path"], "text": np.array(self.processor.batch_decode(ids))}

if __name__ == "__main__":
    shards, checkpoint, output = sys.argv[1:]
    ray.init(num_cpus=max(2, os.cpu_count() or 1), include_dashboard=False, log_to_driver=False,
             logging_level=logging.WARNING)
    pool, options = ray.data.ActorPoolStrategy(size=1), {"batch_size": 32, "num_cpus": 0.5}
    rows = ray.data.read_parquet(shards).map(decode, num_cpus=0.25)
    rows = rows.map_batches(Features, compute=pool, fn_constructor_args=(checkpoint,), **options)
    rows = rows.map_batches(Model, compute=pool, fn_constructor_args=(checkpoint,), **options)
    rows.write_parquet(output)
"""
PIPELINE = """
import io, sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq, soundfile
from transformers import pipeline

shards, checkpoint, output = sys.argv[1:]
asked = pipeline("automatic-speech-recognition", model=checkpoint, device="cpu")
def clips(audio):
    for one in audio:
        yield soundfile.read(io.BytesIO(one["bytes"]), dtype="float32")[0]
Path(output).mkdir()
for file in sorted(Path(shards).iterdir()):
    audio = pq.read_table(file)["audio"].to_pylist()
    texts = [one["text"] for one in asked(clips(audio), batch_size=32)]
    pq.write_table(pa.table({"path": [one["path"] for one in audio], "text": texts}), Path(output, file.name))
"""


def write_clips(home: Path, count: int, seconds: float) -> None:
    """Parquet shards of WAV clips, each another part of the demo's speech."""
    parts = [soundfile.read(file, dtype="float32") for file in sorted((ROOT / "demo/audio").glob("*.flac"))]
    speech = np.concatenate([samples for samples, rate in parts if rate == RATE])
    length = round(seconds * RATE)
    speech = np.tile(speech, -(-2 * length // len(speech)))
    starts = np.random.default_rng(0).integers(0, len(speech) - length, count)
    home.mkdir(parents=True)
    for first in range(0, count, CLIPS_IN_A_SHARD):
        audio = [
            {"bytes": wav(speech[start : start + length]), "path": f"{first + number:06}.wav"}
            for number, start in enumerate(starts[first : first + CLIPS_IN_A_SHARD])
        ]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        pq.write_table(pa.table({"audio": pa.array(audio, kind)}), home / f"{first:06}.parquet")


def wav(samples: npt.NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def commands(shards: Path, output: Path) -> dict[str, list[str]]:
    ours = [
        sys.executable,
        str(ROOT / "jobs/transcribe.py"),
        "--model",
        str(CHECKPOINT),
        "--dtype",
        "float32",
    ]
    ours += ["--input", str(shards), "--output", str(output / "ours"), "--ray-address", "local"]
    scripts = {"the engine's example": PEER, "transformers.pipeline": PIPELINE}
    found = {"ours": ours}
    for name, text in scripts.items():
        script = output / f"{name.split()[0].strip('.')}.py"
        script.write_text(text, encoding="utf-8")
        found[name] = [sys.executable, str(script), str(shards), str(CHECKPOINT), str(output / script.stem)]
    return found


def measure(shards: Path, runs: int) -> dict[str, list[Spent]]:
    found: dict[str, list[Spent]] = {}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as place:
            for name, command in commands(shards, Path(place)).items():
                spent = spend(command, log=Path(place) / "log")
                found.setdefault(name, []).append(spent)
                print(f"{shards.name}, {name}: {spent.wall_s:.1f} s, {spent.cpu_s:.1f} s of CPU", flush=True)
    return found


def report(found: dict[str, dict[str, list[Spent]]], counts: dict[str, int], head: str) -> str:
    lines = ["# Whole jobs", "", head, "", "Medians, in alternation; processor time is of all processes.", ""]
    lines += ["| clips | who | wall, s | processors, s | against ours |", "| --- | --- | --- | --- | --- |"]
    medians = {
        (clips, name): (
            statistics.median(one.wall_s for one in runs),
            statistics.median(one.cpu_s for one in runs),
        )
        for clips, by_name in found.items()
        for name, runs in by_name.items()
    }
    for (clips, name), (wall_s, cpu_s) in medians.items():
        ratio = wall_s / medians[clips, "ours"][0]
        lines.append(f"| {clips} | {name} | {wall_s:.1f} | {cpu_s:.1f} | {ratio:.2f} x |")
    short = [clips for clips in found if clips.endswith(f"{SHORT_S:g} s")]
    if len(short) > 1:
        fewer, more = short[0], short[-1]
        extra = counts[more] - counts[fewer]
        lines += ["", "One more short clip:", "", "| who | wall, ms | processors, ms | against ours |"]
        lines += ["| --- | --- | --- | --- |"]
        each = {
            name: [1000 * (medians[more, name][at] - medians[fewer, name][at]) / extra for at in (0, 1)]
            for name in found[more]
        }
        for name, (wall_ms, cpu_ms) in each.items():
            lines.append(
                f"| {name} | {wall_ms:.2f} | {cpu_ms:.2f} | {wall_ms / each['ours'][0]:.2f} x, "
                f"{cpu_ms / each['ours'][1]:.2f} x of processors |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--date", required=True)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 1200], help="numbers of short clips")
    parser.add_argument("--long", type=int, default=0, help="number of clips of 15 s")
    parser.add_argument("--runs", type=int, default=1)
    args = parser.parse_args()
    found, counts = {}, {}
    with tempfile.TemporaryDirectory() as place:
        asked = [*((count, SHORT_S) for count in args.sizes), *([(args.long, LONG_S)] if args.long else [])]
        for count, seconds in asked:
            clips = f"{count} of {seconds:g} s"
            write_clips(Path(place) / clips, count, seconds)
            counts[clips], found[clips] = count, measure(Path(place) / clips, args.runs)
    text = report(found, counts, describe(args.date))
    print(text)
    if args.output is not None:
        args.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
