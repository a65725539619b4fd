"""Clips and shards that take down the process that works on them: each is found, and becomes an error row.

Ray starts a dead actor or task again and gives it its block again, for ever. So what a process has in hand is
written down outside of it. A block that was in hand when a process died is taken step by step from then on:
clip by clip, or where it is read table by table. Where a process dies again, it is the step in hand that
killed it, and that has killed the first: it has killed twice, and is not tried again. What is read is tried
once more.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
from ray.exceptions import RayError

from pipeline.errors import ClipError, Code, DeviceLostError, Stage

if TYPE_CHECKING:  # model actors need no readers
    from pipeline.corpus.parts import Step

_PATIENCE_S = 30.0
_DEATHS_OF_A_READER = 3  # its error row stands for all clips that follow: two lost nodes cost none
_UNSAID = "it crashed, or took more memory than there is"

Starting = Callable[[int], object]
"""Called with the number of a row before work on it begins."""


@dataclass(frozen=True)
class Isolation:
    """Takes blocks in hand, in a process of a stage."""

    blocks: Any
    name: str
    stage: Stage
    code: Code

    @contextmanager
    def block(self, clips: pa.Table) -> Iterator[tuple[pa.Table, Starting | None]]:
        """The block, with errors for clips that are not tried again; and, where clips are to be taken one by
        one, what to call before each. Ends the process if its device is lost."""
        key = self.key(*clips["clip_id"].to_pylist())
        again, killers = self._take(key)
        if killers:
            clips = self._set_aside(clips, killers)
        try:
            yield clips, partial(self._ask, "start", key) if again else None
        except DeviceLostError as problem:
            self._ask("say", key, str(problem))
            os._exit(1)  # what Ray counts as a failure of the system: others end the job
        self.blocks.done.remote(key)

    @contextmanager
    def steps(self, *names: str) -> Iterator[Step]:
        """What to call before each step of the work that has these names."""
        key = self.key(*names)
        again, killers = self._take(key, _DEATHS_OF_A_READER)
        numbers = count()

        def step() -> str | None:
            number = next(numbers)
            if number in killers:
                return f"the process that read it died three times at the same place: {killers[number]}"
            if again:
                self._ask("start", key, number)
            return None

        yield step
        self.blocks.done.remote(key)

    def key(self, *names: str) -> str:
        """Of a block: the same wherever and how often it is tried."""
        return sha256("\n".join([self.name, *names]).encode()).hexdigest()

    def _set_aside(self, clips: pa.Table, killers: dict[int, str]) -> pa.Table:
        errors = clips["error"].to_pylist()
        for row, said in killers.items():
            reason = f"the process died twice on this clip, the second time with this clip alone: {said}"
            errors[row] = ClipError(self.stage, self.code, reason).as_row()
        index = clips.schema.get_field_index("error")
        field = clips.schema.field(index)
        return clips.set_column(index, field, pa.array(errors, field.type))

    def _take(self, key: str, enough: int = 2) -> tuple[bool, dict[int, str]]:
        return self._ask("take", key, enough) or (False, {})

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

    def take(self, enough: int) -> None:
        if self.row is not None:
            self.deaths[self.row] += 1
            if self.deaths[self.row] == 1 and self.unexplained:
                self.unexplained -= 1
                self.deaths[self.row] += 1
            if self.deaths[self.row] >= enough:
                self.killers[self.row] = self.said
        elif self.taken:
            self.unexplained += 1
        self.taken, self.row, self.said = self.taken + 1, None, _UNSAID


class Blocks:
    """Half of an actor: the blocks in hand, by key."""

    def __init__(self) -> None:
        self._held: dict[str, _Block] = {}

    def take(self, key: str, enough: int = 2) -> tuple[bool, dict[int, str]]:
        """Whether the block was in hand when a process died, and the rows that killed `enough` times."""
        block = self._held.setdefault(key, _Block())
        block.take(enough)
        return block.taken > 1, block.killers

    def start(self, key: str, row: int) -> None:
        if key in self._held:
            self._held[key].row = row

    def say(self, key: str, words: str) -> None:
        if key in self._held:
            self._held[key].said = words

    def done(self, key: str) -> None:
        self._held.pop(key, None)
