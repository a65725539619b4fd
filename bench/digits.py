"""Learn to transcribe digits from S3, without one of the recorded speakers, and read what that speaker says.

    python demo/make_digits.py demo/out/strings RECORDINGS --without theo
    python -m bench.digits demo/out/strings --output demo/out/digits

Needs the extra `test`. The clips are uploaded to an S3 server on this machine, and everything is read from it
and written to it: two runs of `jobs/finetune.py` by `bench/recipe/digits-*.yaml`, then `jobs/transcribe.py`
on the test clips. At last transformers reads some of them with the same checkpoint.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.dataset
import s3fs
import soundfile
import torch
from moto.server import ThreadedMotoServer

from pipeline.metrics.words import WordErrors

ROOT = Path(__file__).resolve().parent.parent
BUCKET = "corpora"
TESTS = ("test/real.tar", "test/real-disturbed.tar")
COMPARED = 60  # clips that transformers reads too


@contextmanager
def server() -> Iterator[Any]:
    """An S3 server with one bucket; the environment leads jobs to it."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    host, port = moto.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    store = s3fs.S3FileSystem()
    store.mkdir(BUCKET)
    try:
        yield store
    finally:
        moto.stop()


def job(name: str, *arguments: str) -> float:
    """Runs a job; the seconds it took."""
    began = time.monotonic()
    subprocess.run([sys.executable, str(ROOT / "jobs" / name), *arguments], check=True, cwd=ROOT)
    return time.monotonic() - began


def learn(clips: Path, store: Any) -> float:
    """Uploads, prepares and trains; the minutes of the two commands."""
    for part in ("train/easy.tar", "train/strings.tar", "valid/strings.tar", *TESTS):
        store.put(str(clips / part), f"{BUCKET}/{part}")
    at = f"s3://{BUCKET}"
    easy = [f"--train={at}/train/easy.tar", f"--output={at}/1-easy"]
    words = [f"--model={at}/1-easy/transcribe", f"--train={at}/train/strings.tar", f"--output={at}/2-words"]
    seconds = job("finetune.py", "--config", "bench/recipe/digits-1-easy.yaml", *easy)
    seconds += job(
        "finetune.py",
        "--config",
        "bench/recipe/digits-2-words.yaml",
        f"--valid={at}/valid/strings.tar",
        *words,
    )
    return seconds / 60


def peer_reads(checkpoint: Path, shard: Path) -> dict[str, str]:
    """By name, what transformers makes of the first clips of a shard."""
    from transformers import AutoProcessor, Wav2Vec2BertForCTC

    model = Wav2Vec2BertForCTC.from_pretrained(checkpoint).eval()
    processor = AutoProcessor.from_pretrained(checkpoint)
    texts: dict[str, str] = {}
    with tarfile.open(shard) as tar:
        for member in tar:
            if member.name.endswith(".flac") and len(texts) < COMPARED:
                content = tar.extractfile(member)
                assert content is not None
                samples, rate = soundfile.read(io.BytesIO(content.read()), dtype="float32")
                with torch.inference_mode():
                    logits = model(**processor(samples, sampling_rate=rate, return_tensors="pt")).logits
                texts[Path(member.name).stem] = processor.batch_decode(logits.argmax(dim=-1))[0]
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, help="what demo/make_digits.py made")
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoint and the table")
    given = parser.parse_args()
    with server() as store:
        minutes = learn(given.clips, store)
        job(
            "transcribe.py",
            *("--input", f"s3://{BUCKET}/test/", "--output", f"s3://{BUCKET}/table"),
            *("--model", f"s3://{BUCKET}/2-words/transcribe"),
        )
        for place in ("2-words/transcribe", "2-words/training.html", "table"):
            store.get(f"{BUCKET}/{place}", str(given.output / Path(place).name), recursive=True)
    rows = pyarrow.dataset.dataset(given.output / "table", format="parquet").to_table().to_pylist()
    ours = {row["clip_id"].rpartition("#")[2]: row["text"] for row in rows}
    theirs = peer_reads(given.output / "transcribe", given.clips / TESTS[0])
    equal = sum(ours[name] == text for name, text in theirs.items())
    print(f"\n{minutes:.1f} minutes for the two commands.")
    for test in TESTS:
        errors = WordErrors()
        errors.add_rows(row for row in rows if row["shard"].endswith(test))
        print(f"{test}: WER {errors.words.rate or 0:.2%} of {errors.scored} strings of a new speaker.")
    print(f"transformers: the same text for {equal} of {len(theirs)} clips.")


if __name__ == "__main__":
    main()
