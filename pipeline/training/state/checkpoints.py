"""The state of a run in storage: complete or absent, the best and the last ones kept.

    checkpoints/begun.json                          what was settled before the first step
    checkpoints/step-00000120/weights.safetensors   by name, of the whole model
                              average.safetensors   their moving average, if there is one
                              optimiser.pt          of AdamW, by the weights' names
                              progress.json         how far the run is, and what was measured
                              complete.json         written last: names and sizes of the others

Order and randomness are functions of (seed, step), so that nothing else is a run's state.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from pipeline import strict_json
from pipeline.errors import JobError
from pipeline.storage import Storage, StorageError, join, name_of

_LOG = logging.getLogger(__name__)
_BEGUN, _COMPLETE = "begun.json", "complete.json"
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Begun:
    """Decided when a run first starts, and kept by every start after it.

    Attributes:
        identity: digest of all that decides what a step computes; a run goes on only under the same.
        max_steps: it may have been chosen by the time that steps take.
        packs_per_step: chosen by the number of workers, which may be another since.
        token_budget, window_frames: see `Order`; chosen by the devices and their disks, likewise.
    """

    identity: str
    max_steps: int
    packs_per_step: int
    token_budget: int
    window_frames: int | None


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: steps done.
        skipped: steps left out since a loss or a gradient was not finite.
        seconds: of training so far.
        measured: what each validation found: {"step": 100, "transcribe/wer": 0.2, ...}.
    """

    step: int = 0
    skipped: int = 0
    seconds: float = 0.0
    measured: list[dict[str, float]] = field(default_factory=list)


@dataclass
class Snapshot:
    """What a checkpoint holds; all tensors on the CPU."""

    progress: Progress
    weights: Weights
    optimiser: dict[str, Any]
    average: Weights | None = None


@dataclass(frozen=True)
class Kept:
    """Which checkpoints stay: the `last` newest, and the `best` by a metric.

    Attributes:
        metric: its name in `Progress.measured`; None: only the newest.
        higher: is better.
    """

    last: int = 2
    best: int = 1
    metric: str | None = None
    higher: bool = False


class Checkpoints:
    """The checkpoints of one run.

    Args:
        check: raises where this process may not write any more.
    """

    def __init__(self, output: str, storage: Storage, check: Callable[[], None] = lambda: None) -> None:
        self.home, self.storage, self._check = join(output, "checkpoints"), storage, check

    def begun(self) -> Begun | None:
        """
        Raises:
            JobError: what says so is damaged.
        """
        uri = join(self.home, _BEGUN)
        data = self.storage.read_bytes_or_none(uri)
        try:
            return None if data is None else strict_json.loads(data, Begun)
        except ValueError as problem:
            raise JobError(f"{uri} is damaged ({problem}); use another --output, or --overwrite") from problem

    def begin(self, begun: Begun) -> Begun:
        """Writes what the run keeps, unless it is there already; returns what is there."""
        self._check()
        self.storage.create(join(self.home, _BEGUN), json.dumps(asdict(begun), indent=2).encode())
        return self.begun() or begun

    def save(self, snapshot: Snapshot) -> None:
        """Writes a checkpoint; it counts once it is whole."""
        self._check()
        folder = self.folder(snapshot.progress.step)
        if self.storage.exists(folder):  # what a killed worker left, or wrote before it was taken back
            self._remove(folder)
        optimiser = io.BytesIO()
        torch.save(snapshot.optimiser, optimiser)
        files = {
            "weights.safetensors": save(_plain(snapshot.weights)),
            "optimiser.pt": optimiser.getvalue(),
            "progress.json": strict_json.dumps(asdict(snapshot.progress), indent=2).encode(),
        }
        if snapshot.average is not None:
            files["average.safetensors"] = save(_plain(snapshot.average))
        for name, data in files.items():
            self.storage.write_bytes(join(folder, name), data)
        self._check()
        sizes = {name: len(data) for name, data in files.items()}
        self.storage.write_bytes(join(folder, _COMPLETE), json.dumps(sizes).encode())

    def newest(self) -> int | None:
        """The step of the newest complete checkpoint."""
        return next((step for step in self._steps() if self._is_complete(step)), None)

    def load(self, step: int) -> Snapshot:
        """
        Raises:
            JobError: the checkpoint is damaged.
        """
        folder = self.folder(step)
        try:
            average = self.storage.read_bytes_or_none(join(folder, "average.safetensors"))
            return Snapshot(
                self.progress(step),
                load(self.storage.read_bytes(join(folder, "weights.safetensors"))),
                torch.load(
                    io.BytesIO(self.storage.read_bytes(join(folder, "optimiser.pt"))), weights_only=True
                ),
                None if average is None else load(average),
            )
        except (JobError, StorageError):
            raise
        except Exception as problem:
            raise JobError(
                f"{folder} is damaged ({problem}); delete it to go on from an earlier one"
            ) from problem

    def progress(self, step: int) -> Progress:
        """Raises JobError where it is damaged."""
        uri = join(self.folder(step), "progress.json")
        try:
            return strict_json.loads(self.storage.read_bytes(uri), Progress)
        except ValueError as problem:
            raise JobError(
                f"{uri} is damaged ({problem}); delete its folder to go on from an earlier one"
            ) from problem

    def weights(self, step: int) -> Weights:
        """Those to publish: the averaged ones where there are any; what is frozen has no average."""
        folder = self.folder(step)
        weights = load(self.storage.read_bytes(join(folder, "weights.safetensors")))
        average = self.storage.read_bytes_or_none(join(folder, "average.safetensors"))
        return weights if average is None else {**weights, **load(average)}

    def prune(self, kept: Kept) -> None:
        """Removes what need not stay, and what never became complete."""
        self._check()
        steps = self._steps()
        complete = [step for step in steps if self._is_complete(step)]
        stays = {*complete[: kept.last], *self.best(kept)[: kept.best]}
        for step in steps:
            if step not in stays:
                self._remove(self.folder(step))

    def best(self, kept: Kept) -> list[int]:
        """The complete checkpoints that were measured, the best first, of equals the later."""
        found = []
        for step in self._steps():
            if kept.metric is None or not self._is_complete(step):
                continue
            for measured in self.progress(step).measured:
                value = measured.get(kept.metric)
                if measured["step"] == step and value is not None:
                    found.append((-value if kept.higher else value, -step))
        return [-step for _, step in sorted(found)]

    def folder(self, step: int) -> str:
        return join(self.home, f"step-{step:08}")

    def _steps(self) -> list[int]:
        """Of everything that looks like a checkpoint, the newest first."""
        names = {uri.split("/")[-2] for uri in self.storage.list_files(self.home, recursive=True)}
        found = (name.removeprefix("step-") for name in names if name.startswith("step-"))
        return sorted((int(step) for step in found if step.isdecimal()), reverse=True)

    def _is_complete(self, step: int) -> bool:
        folder = self.folder(step)
        data = self.storage.read_bytes_or_none(join(folder, _COMPLETE))
        if data is None:
            return False
        try:
            sizes = strict_json.loads(data, dict[str, int])
        except ValueError:
            sizes = {_COMPLETE: -1}
        there = {name_of(uri): size for uri, size in self.storage.sizes(folder).items()}
        if any(there.get(name) != size for name, size in sizes.items()):
            _LOG.warning("%s is damaged, and not used", folder)
            return False
        return True

    def _remove(self, folder: str) -> None:
        """What says that it is complete goes first."""
        self.storage.remove(join(folder, _COMPLETE))
        self.storage.remove(folder, recursive=True)


def _plain(weights: Mapping[str, Tensor]) -> Weights:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
