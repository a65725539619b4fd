"""The weights of a run and what belongs to them, on one worker: how they become a checkpoint, and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from pipeline.errors import JobError
from pipeline.training.group import Group
from pipeline.training.model.learner import Learner
from pipeline.training.optimiser.average import Average
from pipeline.training.state.checkpoints import Progress, Snapshot, Weights


class WeightsKeeper:
    """A model, its optimiser, and the moving average of its weights.

    Args:
        model: its weights may be sharded over the group (FSDP2).
        frozen: names of the weights that stay as they are.
        ema_decay: None: no average.
    """

    def __init__(
        self,
        model: Learner,
        optimiser: torch.optim.Optimizer,
        group: Group,
        *,
        frozen: Collection[str] = (),
        ema_decay: float | None = None,
    ) -> None:
        self.model, self.optimiser, self.group = model, optimiser, group
        self.named: dict[str, nn.Parameter] = dict(model.named_parameters())  # what heads share, once
        self.sharded = any(isinstance(parameter, DTensor) for parameter in self.named.values())
        self._frozen = set(frozen)
        learned = {name: parameter for name, parameter in self.named.items() if name not in self._frozen}
        self.average = None if ema_decay is None else Average(learned, ema_decay)
        self.hold_encoder(False)

    def hold_encoder(self, held: bool) -> None:
        """Freezes the encoder, or trains it again but for what is always frozen."""
        for name, parameter in self.named.items():
            stays = name in self._frozen or (held and name.startswith("encoder."))
            parameter.requires_grad_(not stays)

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model has the weights that would be published."""
        return nullcontext() if self.average is None else self.average.in_use()

    def snapshot(self, progress: Progress) -> Snapshot:
        """Everything on the CPU; all workers take part, and each has the result."""
        numbers = {id(parameter): name for name, parameter in self.named.items()}
        optimiser = {
            numbers[id(parameter)]: {name: _whole(value) for name, value in state.items()}
            for parameter, state in self.optimiser.state.items()
        }
        average = None if self.average is None else _all_whole(self.average.weights)
        return Snapshot(progress, _all_whole(self.named), optimiser, average)

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Takes everything from a checkpoint, whatever the number of workers was.

        Raises:
            JobError: it is one of another model.
        """
        if strange := self.named.keys() ^ snapshot.weights.keys():
            raise JobError(
                f"the checkpoint is one of another model: {sorted(strange)[0]} is only in one of them"
            )
        for name, parameter in self.named.items():
            parameter.copy_(_placed(snapshot.weights[name], parameter))
        for name, state in snapshot.optimiser.items():
            parameter = self.named[name]
            self.optimiser.state[parameter] = {
                key: _placed(value, parameter) if _is_like(value, parameter) else value
                for key, value in state.items()
            }
        if self.average is not None and snapshot.average is not None:
            for name, weight in self.average.weights.items():
                weight.copy_(_placed(snapshot.average[name], weight))


def _all_whole(weights: Mapping[str, Tensor]) -> Weights:
    return {name: _whole(tensor) for name, tensor in weights.items()}


def _whole(value: Any) -> Any:
    if isinstance(value, DTensor):
        value = value.full_tensor()
    return value.detach().cpu() if isinstance(value, Tensor) else value


def _is_like(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


def _placed(whole: Tensor, like: Tensor) -> Tensor:
    """A whole tensor where, and as, another one lies."""
    moved = whole.to(like.device)
    if isinstance(like, DTensor):
        return distribute_tensor(moved, like.device_mesh, like.placements)
    return moved
