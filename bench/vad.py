"""Detectors of voice activity on recordings with a reference: what each keeps, and how fast.

python -m bench.vad --date 2026-11-28 RECORDINGS.rttm FOLDER   # of <name>.flac or <name>.wav
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from bench.machine import describe
from pipeline.audio.recording import decode
from pipeline.audio.resampling import SAMPLE_RATE
from pipeline.audio.vad import Span, load_detector, speech_of
from pipeline.metrics.rttm import read_rttm
from pipeline.storage import Storage, StorageOptions

_BLOCK = 160_000
_FRAME = SAMPLE_RATE // 100  # samples: 10 ms


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rttm", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--date", required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    turns = read_turns(given.rttm)
    samples = {name: decode(find(given.folder, name).read_bytes()).samples for name in turns}
    print(describe(given.date))
    print(f"{len(turns)} recordings, {sum(map(len, samples.values())) / SAMPLE_RATE:.0f} s")
    for name in ("energy", "silero"):
        measure(name, turns, samples)


def measure(name: str, turns: dict[str, list[Span]], samples: dict[str, npt.NDArray[np.float32]]) -> None:
    detector = load_detector(name)
    detector().finish()  # loads what it needs
    kept_speech = speech = kept_rest = rest = 0
    took = 0.0
    for recording, heard in samples.items():
        started = time.perf_counter()
        listening = detector()
        for first in range(0, len(heard), _BLOCK):
            listening.add(heard[first : first + _BLOCK])
        found = speech_of(listening, len(heard) / SAMPLE_RATE)
        took += time.perf_counter() - started
        said, kept = (frames(spans, len(heard)) for spans in (turns[recording], found))
        kept_speech += int((kept & said).sum())
        kept_rest += int((kept & ~said).sum())
        speech += int(said.sum())
        rest += int((~said).sum())
    rtfx = sum(map(len, samples.values())) / SAMPLE_RATE / took
    print(
        f"{name}: keeps {kept_speech / speech:.1%} of {speech / 100:.0f} s of speech and "
        f"{kept_rest / max(1, rest):.1%} of the other {rest / 100:.0f} s; {rtfx:.0f} times real time"
    )


def frames(spans: list[Span], samples: int) -> npt.NDArray[np.bool_]:
    marked = np.zeros(samples // _FRAME, bool)
    for start, stop in spans:
        marked[round(start * 100) : round(stop * 100)] = True
    return marked


def read_turns(rttm: Path) -> dict[str, list[Span]]:
    marks = read_rttm("rttm", str(rttm), Storage(StorageOptions()))
    return {name: [(turn.start_s, turn.end_s) for turn in told.segments] for name, told in marks.items()}


def find(folder: Path, name: str) -> Path:
    return next(file for ending in ("flac", "wav") if (file := folder / f"{name}.{ending}").exists())


if __name__ == "__main__":
    main()
