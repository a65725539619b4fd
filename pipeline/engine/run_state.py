"""What the processes of a run share: counts of their work, and the blocks that they have in hand."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Event, Thread
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.exceptions import RayError
from ray.util.metrics import Counter

from pipeline.engine.cluster import Resources, beside_the_driver, shortage
from pipeline.engine.isolation import Blocks, Isolation
from pipeline.errors import Code, Stage

logger = logging.getLogger(__name__)

STALL_S = 300.0  # without any count: a person is told
_LOOK_S = 1.0
# For the cluster's Prometheus, which knows them as `ray_w2vbert_clips_total` and so on.
_METERS = {
    "clips": ("w2vbert_clips", "Clips whose rows were made, those that are errors too."),
    "errors": ("w2vbert_errors", "Clips whose rows are errors."),
    "audio_s": ("w2vbert_audio_seconds", "Seconds of annotated audio."),
    "encoder_s": ("w2vbert_encoder_seconds", "Seconds of the models spent on clips."),
}
_STAGES = ("read", "featurize", "annotate", "write")
_PATIENCE_S = 30.0
Sums = dict[tuple[str, str], float]
Item = TypeVar("Item")
Report = Callable[[str, float], None]
"""(what, how much): adds to a count."""
ShowSums = Callable[[Sums, float], None]
"""Given the counts, and the seconds since the stages started."""


@dataclass
class Counts:
    """Sums by what was counted.

    Attributes:
        stage_s: seconds that all tasks of a stage worked, by stage.
        passes, frames: of the encoder; None where the actor died that counts.
    """

    stage_s: dict[str, float] = field(default_factory=dict)
    passes: int | None = None
    frames: int | None = None


class RunState:
    """Kept in an actor of its own.

    A run does not depend on it: where it dies, it starts again and has forgotten all deaths until then, and
    counts are missing from the summary.
    """

    def __init__(self) -> None:
        actor: Any = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=beside_the_driver())(_Shared)
        self._actor: Any = actor.remote()

    def report(self, stage: str) -> Report:
        """How a stage reports, from any process: its "seconds", "passes" and "frames" of the encoder, "found"
        clips and "bytes" that were read, and what `count_rows` counts."""
        return partial(_report, self._actor, stage)

    def isolation(self, name: str, stage: Stage, code: Code) -> Isolation:
        """For the processes of one stage; the error of a clip that it gives up."""
        return Isolation(self._actor, name, stage, code)

    def sums(self) -> Sums | None:
        """By (stage, what), so far; None where the actor has died."""
        try:
            found: Sums | None = ray.get(self._actor.sums.remote(), timeout=_PATIENCE_S)
            return found
        except RayError:
            return None

    def close(self) -> Counts:
        """The sums; the actor ends, since a process may make many runs on one cluster."""
        sums = self.sums()
        ray.kill(self._actor)
        if sums is None:
            return Counts()
        by_stage = {stage: seconds for (stage, what), seconds in sums.items() if what == "seconds"}
        in_order = {stage: by_stage[stage] for stage in sorted(by_stage, key=_place)}
        passes, frames = (
            int(sum(amount for (_, name), amount in sums.items() if name == what))
            for what in ("passes", "frames")
        )
        return Counts(in_order, passes, frames)


@contextmanager
def watched(
    state: RunState, resources: Resources, show: ShowSums | None = None, after_s: float = STALL_S
) -> Iterator[None]:
    """Shows the counts while the block runs, and says why nothing was counted for so long: once, and again if
    it stops again."""
    over = Event()
    watcher = Thread(target=_watch, args=(state, resources, show, after_s, over), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _watch(state: RunState, resources: Resources, show: ShowSums | None, after_s: float, over: Event) -> None:
    began = since = time.monotonic()
    seen: Sums | None = None
    told = False
    while not over.wait(min(_LOOK_S, after_s / 10)):
        if (sums := state.sums()) is None:  # who counts died, or has no time to answer: nothing is known
            continue
        if show is not None and not over.is_set():
            show(sums, time.monotonic() - began)
        if sums != seen:
            seen, since, told = sums, time.monotonic(), False
        elif not told and time.monotonic() - since >= after_s:
            logger.warning("no progress for %g minutes: %s", after_s / 60, shortage(resources))
            told = True


def _place(stage: str) -> tuple[int, str]:
    """A second pool of models, "annotate 2", stands after the first."""
    return _STAGES.index(stage.split()[0]), stage


class _Shared(Blocks):
    def __init__(self) -> None:
        super().__init__()
        self._sums: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._meters = {what: Counter(*meter) for what, meter in _METERS.items()}

    def add(self, stage: str, what: str, amount: float) -> None:
        self._sums[stage, what] += amount
        if what in self._meters and amount > 0:
            self._meters[what].inc(amount)

    def sums(self) -> Sums | None:
        died = ray.get_runtime_context().was_current_actor_reconstructed
        return None if died else dict(self._sums)


def _report(actor: Any, stage: str, what: str, amount: float) -> None:
    actor.add.remote(stage, what, amount)


def count_rows(rows: pa.Table, report: Report) -> pa.Table:
    """Reports rows of the table, and gives them back. A block that is made again is counted again."""
    codes = pc.fill_null(pc.struct_field(rows["error"], "code"), "")
    late = pc.equal(codes, Code.UNDELIVERED.value)  # no clip, but a shard
    failed, sound = pc.and_not(pc.not_equal(codes, ""), late), rows.filter(pc.equal(codes, ""))
    errors = pc.sum(failed).as_py() or 0
    report("clips", sound.num_rows + errors)
    report("errors", errors)
    for what, column in (("audio_s", "duration_s"), ("encoder_s", "encoder_s")):
        if column in rows.column_names:
            report(what, pc.sum(sound[column]).as_py() or 0.0)
    return rows


def timed(items: Iterable[Item], report: Report) -> Iterator[Item]:
    """The items; reports the seconds that making each of them took."""
    iterator = iter(items)
    while True:
        started = time.perf_counter()
        try:
            item = next(iterator)
        except StopIteration:
            return
        finally:
            report("seconds", time.perf_counter() - started)
        yield item
