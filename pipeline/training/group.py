"""The workers of a run, as each of them sees the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

_BUCKET = 8 << 20  # numbers of gradients that travel at once
Value = TypeVar("Value")


@dataclass(frozen=True)
class Group:
    """Which worker this is, and of how many; `torch.distributed` joins them where there are several."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - it cannot be changed

    @classmethod
    def current(cls, device: torch.device) -> Group:
        """The process group that Ray Train, or torchrun, has set up; one worker where there is none."""
        if not dist.is_initialized():
            return cls(device=device)
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @property
    def leads(self) -> bool:
        """Whether this is the worker that writes what concerns the whole run."""
        return self.rank == 0

    def share(self, items: Sequence[Value]) -> list[Value]:
        """This worker's share of a step."""
        return list(items[self.rank :: self.size])

    def lacks_one(self, items: Sequence[Any]) -> bool:
        """Whether this worker's share has one less than that of others."""
        return self.rank >= len(items) % self.size > 0

    def sums(self, values: Mapping[str, float], names: Iterable[str]) -> dict[str, float]:
        """Sums over all workers, by name; every worker must ask for the same names."""
        listed = list(names)
        numbers = torch.tensor([values.get(name, 0.0) for name in listed], dtype=torch.float64)
        if self.size > 1:
            numbers = numbers.to(self.device)
            dist.all_reduce(numbers)
        return dict(zip(listed, numbers.tolist(), strict=True))

    def gather(self, value: Value) -> list[Value]:
        """The values of all workers, by rank; they must be picklable."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value)
        return gathered

    def wait(self) -> None:
        """Waits until every worker is here."""
        if self.size > 1:
            dist.barrier()

    def lead(self, work: Callable[[], Value]) -> Value:
        """Runs `work` on the leader alone; every worker returns its result, or raises its error."""
        if self.size == 1:
            return work()
        done: list[Any] = [None, None]
        if self.leads:
            try:
                done[0] = work()
            except Exception as problem:
                done[1] = problem
        dist.broadcast_object_list(done, src=0)
        if done[1] is not None:
            raise done[1]
        value: Value = done[0]
        return value

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Adds up the gradients of all workers, once a step.

        Not `DistributedDataParallel`, which adds up inside each backward pass: here workers may have
        different numbers of packs in a step, and one that does not fit its memory may be computed again in
        halves, without the others waiting for a pass that never comes.
        """
        if self.size == 1:
            return
        bucket: list[Tensor] = []
        for parameter in parameters:
            if not parameter.requires_grad:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            if sum(gradient.numel() for gradient in bucket) >= _BUCKET:
                _sum(bucket)
                bucket = []
        if bucket:
            _sum(bucket)


def _sum(gradients: Sequence[Tensor]) -> None:
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
