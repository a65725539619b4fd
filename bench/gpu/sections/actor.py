"""A model actor: tables to annotations, by concurrent calls, by heads, and by how full its tables are."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.gpu.models import FRAMES_A_SECOND
from bench.gpu.section import Section, run

HEADS = ("transcribe", "classify", "diarize", "embed")
CALLS = 6


def measure(section: Section) -> None:
    if not section.can_import("pydantic", "fsspec"):
        return
    from bench.gpu.actor import make_annotator, make_checkpoints, make_table

    every = [head for head in HEADS if head != "diarize" or section.can_import("scipy")]
    made = make_checkpoints(section, every)
    ten_seconds = [40] * 3 if section.smoke else [500] * 104
    full = make_table(ten_seconds)
    small = make_table(ten_seconds[: max(1, len(ten_seconds) // 12)])  # what 44.1 kHz WAV gave a block
    for heads in (every[:1], every):
        annotate = make_annotator(section, {name: made[name] for name in heads})
        _check(annotate(full))
        for concurrent in (1, 2, 3):
            _measure(section, annotate, full, heads=len(heads), concurrent=concurrent, full=True)
        _measure(section, annotate, small, heads=len(heads), concurrent=1, full=False)
        del annotate


def _check(table: Any) -> None:
    errors = [error for error in table["error"].to_pylist() if error is not None]
    if errors:
        raise RuntimeError(f"{len(errors)} clips of {table.num_rows} failed: {errors[0]}")


def _measure(section: Section, annotate: Any, table: Any, **told: Any) -> None:
    """Seconds a table, when so many calls are under way at a time."""
    seconds = []
    with ThreadPoolExecutor(told["concurrent"]) as pool:
        for _ in range(1 if section.smoke else 3):
            started = time.perf_counter()
            list(pool.map(annotate, [table] * CALLS))
            seconds.append((time.perf_counter() - started) / CALLS)
            if section.left_s < 5:
                break
    spent = statistics.median(seconds)
    audio = sum(table["frames"].to_pylist()) / FRAMES_A_SECOND
    section.add(**told, clips=table.num_rows, ms=round(1e3 * spent, 1), rtfx=round(audio / spent))


if __name__ == "__main__":
    run("actor", measure)
