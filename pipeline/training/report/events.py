"""`events.jsonl`: what a run measured, step by step, for people and tools; the same for TensorBoard.

A line is one JSON object. Its `kind` says what else it holds:

    {"kind": "step", "step": 7, "epoch": 0, "transcribe/loss": 2.1, "learning_rate": 1e-05, ...}
    {"kind": "valid", "step": 100, "transcribe/wer": 0.21, ...}
    {"kind": "skipped", "step": 57, "reason": "...", "clip_ids": [...]}
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipeline import strict_json
from pipeline.storage import Storage, is_remote, join, path_of

FILE, TENSORBOARD = "events.jsonl", "tensorboard"
STEP, VALID, SKIPPED = "step", "valid", "skipped"
Event = dict[str, Any]


class Events:
    """Writes events; one worker of a run has it.

    Local files grow with every event. Elsewhere they are written in a temporary folder, and copied as a whole
    by `sync`.

    Args:
        output: the run's folder; `FILE` and the folder `TENSORBOARD` are in it.
        step: that the run goes on from; later events, which an earlier start wrote, are taken away.
    """

    def __init__(self, output: str, storage: Storage, step: int = 0) -> None:
        from tensorboardX import SummaryWriter

        self._output, self._storage = output, storage
        self._stack = ExitStack()
        self._remote = is_remote(output)
        if self._remote:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="w2vbert-events-"))
        else:
            folder = path_of(output)
        self._tensorboard, self._jsonl = Path(folder, TENSORBOARD), Path(folder, FILE)
        lines = (strict_json.dumps(event) for event in read_events(output, storage) if event["step"] <= step)
        storage.write_bytes(str(self._jsonl), "".join(f"{line}\n" for line in lines).encode())
        self._file = self._stack.enter_context(self._jsonl.open("a", encoding="utf-8"))
        # TensorBoard takes away what it has read of this step and later ones.
        self._writer = self._stack.enter_context(SummaryWriter(str(self._tensorboard), purge_step=step + 1))

    def step(self, step: int, epoch: int, scalars: Mapping[str, float]) -> None:
        """What came of a step, by tag; numbers that are not finite are left out."""
        self._scalars({"kind": STEP, "step": step, "epoch": epoch}, scalars, "")

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        """What a validation found, by "task/metric"."""
        self._scalars({"kind": VALID, "step": step}, metrics, "valid/")

    def skipped(self, step: int, clip_ids: Sequence[str], reason: str) -> None:
        """A batch that was left out, and why."""
        reason = self._storage.options.redact(reason)
        self._line({"kind": SKIPPED, "step": step, "reason": reason, "clip_ids": list(clip_ids)})
        self._writer.add_text("skipped", f"{reason}: {', '.join(clip_ids)}", step)

    def sync(self) -> None:
        """Makes what was told so far last, wherever the output is: to be called before each checkpoint."""
        self._file.flush()
        self._writer.flush()
        if not self._remote:
            return
        for path in (self._jsonl, *sorted(self._tensorboard.iterdir())):
            name = path.relative_to(self._jsonl.parent).as_posix()
            self._storage.write_bytes(join(self._output, *name.split("/")), path.read_bytes())

    def close(self) -> None:
        self.sync()
        self._stack.close()

    def _scalars(self, event: Event, scalars: Mapping[str, float], prefix: str) -> None:
        finite = {tag: float(value) for tag, value in scalars.items() if math.isfinite(value)}
        self._line({**event, **finite})
        for tag, value in finite.items():
            self._writer.add_scalar(prefix + tag, value, event["step"])

    def _line(self, event: Event) -> None:
        self._file.write(strict_json.dumps(event) + "\n")
        self._file.flush()


def read_events(output: str, storage: Storage) -> list[Event]:
    """The events of a run, in the order in which they came; none where there are none yet."""
    return list(_events(storage.read_bytes_or_none(join(output, FILE)) or b""))


def _events(data: bytes) -> Iterator[Event]:
    for line in data.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            return  # the writer was killed in the middle of this line
        yield event
