"""Clips that take down the process that works on them: each is found, and becomes an error row.

Ray starts a dead actor again and gives it its block again, for ever. So what an actor has in hand is written
down outside of it. A block that was in hand when an actor died is taken clip by clip from then on. Where an
actor dies again, it is the clip in hand that killed it, and that has killed the first: it has killed twice,
and is not tried again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayError

from pipeline.engine.cluster import beside_the_driver
from pipeline.errors import ClipError, Code, DeviceLostError, Stage

_PATIENCE_S = 30.0
_UNSAID = "it crashed, or took more memory than there is"

Starting = Callable[[int], object]
"""Called with the number of a row before work on it begins, where rows are to be taken one by one."""


class Hands:
    """What the actors of a run have in hand, kept in an actor of its own.

    A run does not depend on it: where it dies, it starts again and has forgotten all deaths until then.
    """

    def __init__(self) -> None:
        actor: Any = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=beside_the_driver())(_Blocks)
        self._actor: Any = actor.remote()

    def of(self, name: str, stage: Stage, code: Code) -> Isolation:
        """For the actors of one stage; the error of a clip that it gives up."""
        return Isolation(self._actor, name, stage, code)


@dataclass(frozen=True)
class Isolation:
    """Takes blocks in hand, in an actor of a stage."""

    blocks: Any
    name: str
    stage: Stage
    code: Code

    @contextmanager
    def block(self, clips: pa.Table) -> Iterator[tuple[pa.Table, Starting | None]]:
        """The block, with errors for clips that are not to be tried again; and whom to tell of each clip
        where they are to be taken one by one. Ends the process where its device is lost."""
        key = self.key(clips)
        again, killers = self._ask("take", key) or (False, {})
        if killers:
            clips = self._set_aside(clips, killers)
        try:
            yield clips, partial(self._ask, "start", key) if again else None
        except DeviceLostError as problem:
            self._ask("say", key, str(problem))
            os._exit(1)  # what Ray counts as a failure of the system: others end the job
        self.blocks.done.remote(key)

    def key(self, clips: pa.Table) -> str:
        """Of a block: the same wherever and how often it is tried."""
        return sha256("\n".join([self.name, *clips["clip_id"].to_pylist()]).encode()).hexdigest()

    def _set_aside(self, clips: pa.Table, killers: dict[int, str]) -> pa.Table:
        errors = clips["error"].to_pylist()
        for row, said in killers.items():
            reason = f"the process that worked on this clip died twice, at last with it alone in hand: {said}"
            errors[row] = ClipError(self.stage, self.code, reason).as_row()
        index = clips.schema.get_field_index("error")
        field = clips.schema.field(index)
        return clips.set_column(index, field, pa.array(errors, field.type))

    def _ask(self, what: str, *given: Any) -> Any:
        try:
            return ray.get(getattr(self.blocks, what).remote(*given), timeout=_PATIENCE_S)
        except RayError:  # it is gone, or starts again
            return None


@dataclass
class _Block:
    """A block in hand: the row that was begun last, what its process said of its end, and who killed."""

    taken: int = 0
    row: int | None = None
    said: str = _UNSAID
    unexplained: int = 0  # deaths with the whole block in hand
    deaths: Counter[int] = field(default_factory=Counter)  # by row
    killers: dict[int, str] = field(default_factory=dict)

    def take(self) -> None:
        if self.row is not None:
            self.deaths[self.row] += 1
            if self.deaths[self.row] == 1 and self.unexplained:
                self.unexplained -= 1
                self.deaths[self.row] += 1
            if self.deaths[self.row] > 1:
                self.killers[self.row] = self.said
        elif self.taken:
            self.unexplained += 1
        self.taken, self.row, self.said = self.taken + 1, None, _UNSAID


class _Blocks:
    def __init__(self) -> None:
        self._held: dict[str, _Block] = {}

    def take(self, key: str) -> tuple[bool, dict[int, str]]:
        """Whether the block was in hand when a process died, and the clips that killed."""
        block = self._held.setdefault(key, _Block())
        block.take()
        return block.taken > 1, block.killers

    def start(self, key: str, row: int) -> None:
        if key in self._held:
            self._held[key].row = row

    def say(self, key: str, words: str) -> None:
        if key in self._held:
            self._held[key].said = words

    def done(self, key: str) -> None:
        self._held.pop(key, None)
