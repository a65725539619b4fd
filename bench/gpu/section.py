"""A section of the bench: its device and sizes, its results as JSON after each of them, its clock."""

from __future__ import annotations

import argparse
import json
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from bench.gpu.interpreter import mend

SMOKE = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48},
    **{"conv_depthwise_kernel_size": 5, "left_max_position_embeddings": 6},
}


@dataclass
class Section:
    """Where a section runs and what it found.

    Attributes:
        name: of its file.
        output: its JSON, written whole after each row.
        smoke: everything tiny, on a CPU.
        seconds: what it may take; a section that repeats stops repeating in time.
    """

    name: str
    output: Path
    smoke: bool
    seconds: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.smoke else "cuda")

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16

    @property
    def fields(self) -> dict[str, Any]:
        """Of a configuration: the published sizes, or tiny ones."""
        return SMOKE if self.smoke else {}

    @property
    def left_s(self) -> float:
        return self.seconds - (time.monotonic() - self.started)

    def add(self, **row: Any) -> None:
        """A row of results; what is known so far is on disk before the next one."""
        self.rows.append(row)
        self.write(complete=False)
        print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)

    def write(self, *, complete: bool, error: str | None = None) -> None:
        told = {"section": self.name, "smoke": self.smoke, "complete": complete, "error": error}
        told |= {"seconds": round(time.monotonic() - self.started, 1), "rows": self.rows}
        unfinished = self.output.with_suffix(".tmp")
        unfinished.write_text(json.dumps(told, indent=1), encoding="utf-8")
        unfinished.replace(self.output)

    def can_import(self, *packages: str) -> bool:
        """Whether a bare machine has what a part needs; what it lacks is told as a row."""
        absent = [package for package in packages if find_spec(package) is None]
        if absent:
            self.add(what="skipped", reason=f"{', '.join(absent)} not installed")
        return not absent

    def milliseconds(self, function: Callable[[], object]) -> float:
        """Of one call, by the device's own clock."""
        if self.device.type != "cuda":
            started = time.perf_counter()
            function()
            return 1e3 * (time.perf_counter() - started)
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        function()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last))

    def median(self, function: Callable[[], object], repeats: int = 5) -> float:
        """Milliseconds of a call, after a first one that is not counted."""
        function()
        return statistics.median(self.milliseconds(function) for _ in range(repeats))


def run(name: str, measure: Callable[[Section], None]) -> None:
    """The program of a section. Whatever it raises is told in its JSON, with the rows until then."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.gpu.sections.{name}")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    parser.add_argument("--seconds", type=float, default=60.0, help="what the section may take")
    parser.add_argument("--smoke", action="store_true", help="everything tiny, on a CPU")
    args = parser.parse_args()
    section = Section(name, args.output, args.smoke, args.seconds)
    section.write(complete=False)
    torch.manual_seed(0)
    if args.smoke:
        mend()
    try:
        measure(section)
    except BaseException:
        section.write(complete=False, error=traceback.format_exc()[-2000:])
        raise
    section.write(complete=True)
