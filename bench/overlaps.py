"""How much the overlap of two windows tells of who is who, by its length.

    python -m bench.overlaps --date 2026-11-25 --output bench/results/overlaps.md meeting.rttm other.rttm

Speaker slots of neighbouring windows are matched by who speaks where they overlap. For every place that an
overlap can have in a recording: is anybody heard in it for at least 0.2 s, and are two?
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.metrics.rttm import Segment, read_rttm
from pipeline.storage import Storage, StorageOptions

OVERLAPS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
HEARD_S = 0.2
RATE = 100  # steps in a second


def activity(turns: Sequence[Segment]) -> npt.NDArray[np.bool_]:
    """(steps, speakers): who speaks, up to the last word."""
    speakers = sorted({turn.speaker for turn in turns})
    active = np.zeros((round(max(turn.end_s for turn in turns) * RATE), len(speakers)), np.bool_)
    for turn in turns:
        active[round(turn.start_s * RATE) : round(turn.end_s * RATE), speakers.index(turn.speaker)] = True
    return active


def heard(active: npt.NDArray[np.bool_], overlap_s: float) -> npt.NDArray[np.int_]:
    """How many speakers are heard, for every place of an overlap."""
    so_far = np.concatenate([np.zeros((1, active.shape[1]), np.int_), active.cumsum(axis=0)])
    length = round(overlap_s * RATE)
    counts: npt.NDArray[np.int_] = np.sum(so_far[length:] - so_far[:-length] >= HEARD_S * RATE, axis=1)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rttm", nargs="+")
    parser.add_argument("--date", required=True)
    parser.add_argument("--output", type=Path, required=True, help="markdown file")
    args = parser.parse_args()
    lines = ["# Who is heard where windows overlap", "", args.date, ""]
    lines += ["| recording | overlap | somebody | two speakers |", "| --- | --- | --- | --- |"]
    for path in args.rttm:
        for name, marks in read_rttm("meeting", path, Storage(StorageOptions())).items():
            for overlap_s in OVERLAPS_S:
                speakers = heard(activity(marks.segments), overlap_s)
                shares = f"{np.mean(speakers > 0):.0%} | {np.mean(speakers > 1):.0%}"
                lines.append(f"| {name} | {overlap_s:g} s | {shares} |")
    print("\n".join(lines))
    args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
