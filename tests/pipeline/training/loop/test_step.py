"""The gradients of a step: those of whole packs, whatever fits the memory."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from pipeline.training.batches.batch import Batch
from pipeline.training.group import Group
from pipeline.training.loop.step import Draw, Gradients, Sums
from pipeline.training.model.multitask import MultiTask
from tests.pipeline.training.model.tiny import HEADS, STILL, batch, tiny

WEIGHTS = {"transcribe": 1.0, "classify": 0.5, "diarize": 2.0, "embed": 0.3}
MIB = 1 << 20


class Limited(MultiTask):
    """Fits so many frames."""

    most = 10**9

    def forward(self, batch: Batch, **given: Any) -> Any:
        if sum(batch.features.lengths) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return super().forward(batch, **given)


def learner(**fields: Any) -> Limited:
    made = tiny(tuple(HEADS), **STILL, **fields)
    return Limited(made.results).train()


def asked_of(model: MultiTask) -> list[int]:
    """The frames of each pass from now on, those that do not fit too."""
    asked: list[int] = []
    model.register_forward_pre_hook(lambda module, given: asked.append(sum(given[0].features.lengths)))
    return asked


def gradients(model: MultiTask, batches: list[Batch], draw: Draw) -> tuple[Sums, dict[str, Tensor]]:
    sums = Gradients(model, Group()).of(batches, draw)
    found = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        found[name] = parameter.grad.clone()
    return sums, found


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    largest = max(float(gradient.norm()) for gradient in expected.values())
    for name, gradient in expected.items():
        off = float((found[name] - gradient).norm())
        assert off < 1e-5 * float(gradient.norm()) + 1e-6 * largest, (name, off, float(gradient.norm()))


@pytest.mark.parametrize(
    ("most", "sizes"),
    [(70, [98, 33, 19, 46, 42, 42]), (40, [98, 33, 19, 46, 33, 19, 26, 20, 12, 30, 20, 22])],
)
def test_what_does_not_fit_is_halved(most: int, sizes: list[int]) -> None:
    """And again, where it is more than half of what did not fit; each clip counts once, as much as ever."""
    model, batches = learner(), [batch((33, 19, 26, 20), seed=1), batch((12, 30, 20, 22), seed=2)]
    whole, expected = gradients(model, batches, Draw(WEIGHTS))
    model.most = most
    asked = asked_of(model)
    sums, found = gradients(model, batches, Draw(WEIGHTS))
    assert asked == sizes
    assert_close(found, expected)
    assert sums.numbers == pytest.approx(whole.numbers, rel=1e-5)
    assert [clip.clip_id for clip in sums.clips].count("clip-0") == 2 * len(WEIGHTS)
    assert len(sums.clips) == len(whole.clips)


def test_bfloat16_is_about_the_same() -> None:
    model, batches = learner(), [batch(seed=1)]
    whole, expected = gradients(model, batches, Draw(WEIGHTS))
    sums, found = gradients(model, batches, Draw(WEIGHTS, autocast=torch.bfloat16))
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    assert sums.numbers != whole.numbers
    assert sums.numbers == pytest.approx(whole.numbers, rel=0.05)
    off = sum(float((found[name] - gradient).norm()) ** 2 for name, gradient in expected.items())
    assert off < 0.1**2 * sum(float(gradient.norm()) ** 2 for gradient in expected.values())


def test_one_clip_that_does_not_fit_ends_the_run() -> None:
    model = learner()
    model.most = 30
    with pytest.raises(torch.OutOfMemoryError):
        gradients(model, [batch((33, 19))], Draw(WEIGHTS))


def test_it_is_remembered() -> None:
    """Nothing that is more than half of what failed is tried again."""
    model = learner()
    model.most = 70
    asked = asked_of(model)
    step = Gradients(model, Group())
    for _ in range(2):
        step.of([batch((33, 19, 26, 20))], Draw(WEIGHTS))
    assert asked == [98, 33, 19, 46, 33, 19, 46]


@contextmanager
def _room(size: int) -> Iterator[None]:
    """Leaves the process so many bytes of memory."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + size, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def _with_little_memory(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    # Their attention alone takes 4 x 2 x 1000 x 1000 numbers a layer, again for each clip.
    model, batches = learner(hidden_size=32, num_attention_heads=2), [batch((1000,) * 8, seed=3)]
    gradients(model, [batch((100, 90), seed=1)], Draw(WEIGHTS))
    before = _memory("VmSize")
    _, expected = gradients(model, batches, Draw(WEIGHTS))
    needed = _memory("VmPeak") - before
    assert needed > 100 * MIB
    model.zero_grad(set_to_none=True)
    asked = asked_of(model)
    with _room(needed * 6 // 10):
        _, found = gradients(model, batches, Draw(WEIGHTS))
    assert asked[0] == 8000 > max(asked[1:])
    assert_close(found, expected)
    (folder / "needed").write_text(str(needed))


@pytest.mark.slow
def test_real_memory_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")  # what is freed is the system's again
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    spawn(_with_little_memory, (tmp_path,), nprocs=1)
    assert int((tmp_path / "needed").read_text()) > 0
