"""Two processes share a step, each with the batch that the other has no task of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from pipeline.training.model.learner import Learner
from tests.pipeline.training.model.tiny import HEADS, LENGTHS, STILL, batch, targets, tiny

PARALLEL = ("ddp", "fsdp2")
TASKS = (("transcribe", "embed"), ("classify", "diarize"))


def sum_of_losses(model: Any, rank: int, skipped: set[int]) -> Tensor:
    given = targets(LENGTHS, seed=rank)
    losses = model(
        batch(given={task: given[task] for task in TASKS[rank]}, seed=rank), skipped_layers=skipped
    )
    return torch.stack([loss.total for loss in losses.values() if loss.count]).sum()


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    found = {parallel: gradients(parallel, rank) for parallel in PARALLEL}
    if rank == 0:
        torch.save(found, folder / "gradients.pt")
    distributed.destroy_process_group()


def gradients(parallel: str, rank: int) -> dict[str, Tensor]:
    model: Any = learner()
    if parallel == "ddp":
        model = DistributedDataParallel(model)
    else:
        for layer in model.encoder.encoder.layers:
            fully_shard(layer)
        fully_shard(model)
    for skipped in (set(), {1}):
        model.zero_grad()
        sum_of_losses(model, rank, skipped).backward()
    found = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        assert gradient is not None, name
        whole = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
        found[name.removeprefix("module.")] = whole
    return found


def learner() -> Learner:
    return tiny(tuple(HEADS), seed=4, **STILL)


@pytest.mark.slow
def test_gradients_are_the_mean_of_both(tmp_path: Path) -> None:
    """Nothing waits for ever, and no parameter is without a gradient, a skipped layer's neither."""
    spawn(work, (tmp_path,), nprocs=2)
    found = torch.load(tmp_path / "gradients.pt")
    model = learner()
    for rank in (0, 1):
        (sum_of_losses(model, rank, {1}) / 2).backward()
    for name, parameter in model.named_parameters():
        for parallel in PARALLEL:
            torch.testing.assert_close(found[parallel][name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)
