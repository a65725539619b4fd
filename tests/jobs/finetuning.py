"""What the tests of fine-tuning jobs share: a corpus of tones with labels, a tiny model, the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import soundfile

from tests.conftest import ROOT

RATE = 16000
LETTERS = {"a": 300.0, "b": 700.0, "c": 1500.0, "d": 3000.0}  # Hz
MODEL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_depthwise_kernel_size": 5,
    "output_hidden_size": 16,
    "layerdrop": 0.1,
    "mask_time_prob": 0.1,
}
# What a run writes once a step, and what decides what is best.
SHORT = {"token-budget": "160", "min-char-count": "1", "valid-share": "0", "threads-per-worker": "1"}
FAST = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "OMP_NUM_THREADS": "1"}


class Recording(NamedTuple):
    """A clip of the corpus; `samples` are tones of its letters where nothing else is given."""

    name: str
    text: str
    samples: np.ndarray | bytes | None = None


def tones(text: str, seed: int, letter_s: float = 0.25) -> np.ndarray:
    """(samples,) float32: a tone for each letter, and noise."""
    time = np.arange(int(letter_s * RATE)) / RATE
    sound = [np.sin(2 * np.pi * LETTERS[letter] * time) for letter in text]
    whole = np.concatenate([*sound, np.zeros(RATE // 10)])
    return (0.3 * whole + 0.01 * np.random.default_rng(seed).normal(size=len(whole))).astype(np.float32)


def recordings(count: int) -> list[Recording]:
    rng = np.random.default_rng(3)
    return [
        Recording(f"clip-{number:02}", "".join(rng.choice([*LETTERS], rng.integers(3, 7))))
        for number in range(count)
    ]


def write_corpus(folder: Path, clips: Iterable[Recording]) -> Path:
    """WAV files, and a manifest that names and labels them."""
    (folder / "audio").mkdir(parents=True)
    lines = []
    for seed, (name, text, samples) in enumerate(clips):
        path = folder / "audio" / f"{name}.wav"
        if isinstance(samples, bytes):
            path.write_bytes(samples)
        else:
            soundfile.write(path, tones(text, seed) if samples is None else samples, RATE)
        lines.append(json.dumps({"audio_filepath": f"audio/{name}.wav", "text": text, "speaker": name[-1]}))
    manifest = folder / "list.jsonl"
    manifest.write_text("".join(f"{line}\n" for line in lines))
    return manifest


def arguments(train: Path | str, output: Path | str, **flags: Any) -> list[str]:
    """Of jobs/finetune.py, with `MODEL` unless a model is named."""
    given: dict[str, Any] = {"task": "transcribe", "train": train, "output": output, **SHORT}
    given |= {name.replace("_", "-"): value for name, value in flags.items()}
    if "model" not in given:
        config = Path(os.environ.get("TMPDIR", "/tmp")) / f"w2vbert-tiny-{os.getpid()}.json"
        config.write_text(json.dumps(MODEL))
        given["model-config"] = config
    told = []
    for name, value in given.items():
        told += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return told


def start(told: Iterable[str], log: Path, **environment: str) -> subprocess.Popen[str]:
    """The command, in a process of its own; it says what it says to the log."""
    with log.open("w") as said:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "jobs/finetune.py"), *told],
            stdout=said,
            stderr=said,
            text=True,
            env={**os.environ, **FAST, **environment},
            cwd=ROOT,
        )


def events(output: Path) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in (output / "events.jsonl").read_text().splitlines()]


def losses(output: Path) -> dict[tuple[int, str, str], float]:
    """By step, clip and split; fails where one is there twice."""
    rows = pq.read_table(output / "losses.parquet").to_pylist()
    found = {(row["step"], row["clip_id"], row["split"]): row["loss"] for row in rows}
    assert len(found) == len(rows)
    return found


def assert_same_run(output: Path, expected: Path) -> None:
    """The same clips in each step, with the same losses, and nothing that the other has not."""
    found, wanted = losses(output), losses(expected)
    assert found.keys() == wanted.keys()
    assert found == pytest.approx(wanted, rel=1e-6)
    steps = [event["step"] for event in events(output) if event["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1))
    assert steps == [event["step"] for event in events(expected) if event["kind"] == "step"]
    for place in (output, expected):
        for folder in (place / "checkpoints").glob("step-*"):
            assert (folder / "complete.json").exists(), folder
    assert _steps(output) == _steps(expected)
    assert not (output / "lock.json").exists()


def _steps(output: Path) -> list[str]:
    return sorted(folder.name for folder in (output / "checkpoints").glob("step-*"))


def training_workers() -> list[psutil.Process]:
    """The processes that train just now, of the cluster that this process started: others have theirs."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith("ray::RayTrainWorker"):
                found.append(process)
    return found
