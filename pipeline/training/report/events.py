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
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipeline import strict_json
from pipeline.storage import Storage, is_remote, join, path_of

FILE, TENSORBOARD = "events.jsonl", "tensorboard"
STEP, VALID, SKIPPED = "step", "valid", "skipped"
NOT_FINITE = "the stored features are not finite"  # why a clip is left out
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
        self._output, self._storage = output, storage
        self._stack = ExitStack()
        self._remote = is_remote(output)
        if self._remote:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="w2vbert-events-"))
        else:
            folder = path_of(output)
        self._jsonl, self._tensorboard = Path(folder, FILE), Path(folder, TENSORBOARD)
        lines = (strict_json.dumps(event) for event in read_events(output, storage) if event["step"] <= step)
        storage.write_bytes(str(self._jsonl), "".join(f"{line}\n" for line in lines).encode())
        self._file = self._stack.enter_context(self._jsonl.open("a", encoding="utf-8"))
        self._curves = _TensorBoard(self._tensorboard, step)
        self._stack.callback(self._curves.close)

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

    def sync(self) -> None:
        """Writes everything so far to the output. Call it before each checkpoint."""
        self._file.flush()
        self._curves.flush()
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
        self._curves.add(event["step"], {prefix + tag: value for tag, value in finite.items()})

    def _line(self, event: Event) -> None:
        self._file.write(strict_json.dumps(event) + "\n")
        self._file.flush()


class _TensorBoard:
    """A file of TensorBoard's, written at once: the queue of tensorboardX's `SummaryWriter` cannot be waited
    for."""

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"), f".after-{step}")
        # Of this step and later ones TensorBoard takes away what it has read in other files.
        self._write(step + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(step, summary=Summary(value=values))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _write(self, step: int, **what: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event as Record

        self._writer.write_event(Record(wall_time=time.time(), step=step, **what))


def read_events(output: str, storage: Storage) -> list[Event]:
    """The events of a run, in the order in which they came; none where there are none yet."""
    events: list[Event] = []
    for line in (storage.read_bytes_or_none(join(output, FILE)) or b"").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:  # the writer was killed in the middle of this line
            break
    return events
