"""Which examples run together, and when."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.batches.order import LONG_FRAMES, Order, costs
from pipeline.training.batches.seeds import pack_seed
from tests.conftest import ROOT


@st.composite
def corpora(draw: st.DrawFn) -> dict[str, Any]:
    frames = draw(st.lists(st.integers(1, 2000), min_size=1, max_size=80))
    files = draw(st.integers(1, 5))
    file = draw(st.lists(st.integers(0, files - 1), min_size=len(frames), max_size=len(frames)))
    return {
        "frames": np.array(frames, np.int32),
        "file": np.array(file, np.int32),
        "budget": draw(st.integers(1, 6000)),
        "seed": draw(st.integers(0, 2**31 - 1)),
        "window_frames": draw(st.none() | st.integers(1, 20_000)),
    }


@given(corpora(), st.integers(0, 1000))
def test_every_clip_is_in_one_pack_and_no_pack_is_over_the_budget(corpus: dict[str, Any], epoch: int) -> None:
    order = Order(**corpus)
    packs = order.packs(epoch)
    assert [pack.number for pack in packs] == list(range(len(order)))
    assert {pack.epoch for pack in packs} == {epoch}
    held = np.concatenate([pack.examples for pack in packs])
    assert sorted(held.tolist()) == list(range(len(corpus["frames"])))
    for pack in packs:
        frames = corpus["frames"][pack.examples].astype(float)
        assert len(pack.examples) == 1 or (frames * (1 + frames / 1500)).sum() <= corpus["budget"] + 1e-6


@given(corpora(), st.integers(0, 1000))
def test_packs_are_a_function_of_seed_and_epoch(corpus: dict[str, Any], epoch: int) -> None:
    order, other = Order(**corpus), Order(**corpus)
    other.packs(epoch + 1)  # what was asked before does not matter
    for one, two in zip(order.packs(epoch), other.packs(epoch), strict=True):
        assert one[:2] == two[:2]
        np.testing.assert_array_equal(one.examples, two.examples)


@given(corpora(), st.integers(1, 9))
def test_steps_are_the_packs_of_one_epoch_after_the_other(
    corpus: dict[str, Any], packs_per_step: int
) -> None:
    order = Order(**corpus)
    steps = order.steps(packs_per_step)
    assert steps.per_epoch == -(-len(order) // packs_per_step)
    for epoch in range(2):
        taken = [steps[epoch * steps.per_epoch + number] for number in range(steps.per_epoch)]
        assert all(len(step) == packs_per_step for step in taken[:-1])
        numbers = [(pack.epoch, pack.number) for step in taken for pack in step]
        assert numbers == [(epoch, number) for number in range(len(order))]
        assert steps.epoch(epoch * steps.per_epoch) == epoch


@given(corpora())
def test_the_dearest_pack_is_dearer_than_the_others(corpus: dict[str, Any]) -> None:
    order = Order(**corpus)
    dearest = order.dearest(3)
    np.testing.assert_array_equal(dearest.examples, order.packs(3)[dearest.number].examples)
    spent = [costs(corpus["frames"][pack.examples]).sum() for pack in order.packs(3)]
    assert costs(corpus["frames"][dearest.examples]).sum() == max(spent)


@given(corpora())
def test_no_more_files_are_open_than_a_window_holds(corpus: dict[str, Any]) -> None:
    packs = Order(**corpus).packs(0)
    files = [set(corpus["file"][pack.examples].tolist()) for pack in packs]
    held = np.bincount(corpus["file"], corpus["frames"])
    for number in range(len(packs)):
        still_open = set().union(*files[: number + 1]) & set().union(*files[number:])
        if corpus["window_frames"] is not None and len(still_open) > 1:
            assert sum(held[file] for file in still_open) <= corpus["window_frames"]


def lognormal(count: int = 5000) -> np.ndarray:
    generator = np.random.default_rng(0)
    return np.clip(generator.lognormal(5.5, 0.7, count), 10, 1500).astype(np.int32)


def test_clips_of_a_pack_are_alike_and_packs_are_full() -> None:
    frames = lognormal()
    order = Order(frames, np.zeros(len(frames), np.int32), 8192, 0)
    packs = order.packs(0)
    spans = [frames[pack.examples].max() / frames[pack.examples].min() for pack in packs]
    assert np.median(spans) < 1.11
    full = [costs(frames[pack.examples]).sum() / LONG_FRAMES / 8192 for pack in packs]
    assert np.mean(full) > 0.8


def test_epochs_and_seeds_differ() -> None:
    frames = lognormal(500)
    file = np.zeros(500, np.int32)

    def together(seed: int, epoch: int) -> set[tuple[int, ...]]:
        return {
            tuple(sorted(pack.examples.tolist())) for pack in Order(frames, file, 4096, seed).packs(epoch)
        }

    orders = [together(0, 0), together(0, 1), together(1, 0)]
    for one, other in pairwise(orders):
        assert len(one & other) < 0.2 * len(one)
    first = [pack.examples.tolist() for pack in Order(frames, file, 4096, 0).packs(0)]
    lengths = [frames[pack].mean() for pack in first]
    assert abs(np.corrcoef(np.arange(len(lengths)), lengths)[0, 1]) < 0.2


def test_windows_come_in_another_order_in_each_epoch() -> None:
    frames, file = np.full(64, 100, np.int32), np.repeat(np.arange(8, dtype=np.int32), 8)
    order = Order(frames, file, 450, 0, window_frames=800)
    turns = []
    for epoch in range(3):
        seen = [int(file[pack.examples[0]]) for pack in order.packs(epoch)]
        turns.append(list(dict.fromkeys(seen)))
        assert sorted(turns[-1]) == list(range(8))
        assert len([one for one, other in pairwise(seen) if one != other]) == 7
    assert len({tuple(turn) for turn in turns}) == 3


def test_another_process_finds_the_same_order() -> None:
    """And any NumPy: these numbers may never change, or no run could go on after an update."""
    code = (
        "import numpy as np; from pipeline.training.batches.order import Order; "
        "from pipeline.training.batches.seeds import pack_seed; "
        "f = (np.arange(40) * 37 % 300 + 1).astype(np.int32); "
        "p = Order(f, (np.arange(40) % 4).astype(np.int32), 700, 7, 4000).packs(3); "
        "print(p[0].examples.tolist(), p[-1].examples.tolist(), len(p), pack_seed(7, 3, 0))"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert told.stdout.strip() == "[6, 24] [7] 14 6836328764016565466"


@settings(max_examples=20)
@given(st.integers(0, 2**63), st.integers(0, 1000), st.integers(0, 10**6))
def test_seeds_of_packs_are_different_numbers_of_63_bits(seed: int, epoch: int, number: int) -> None:
    near = [
        (seed, epoch, number),
        (seed, epoch, number + 1),
        (seed, epoch + 1, number),
        (seed + 1, epoch, number),
    ]
    seeds = {pack_seed(*one) for one in near}
    assert len(seeds) == 4
    assert all(0 <= one < 2**63 for one in seeds)
    assert pack_seed(seed, epoch, number) in seeds


def test_bits_of_seeds_are_mixed() -> None:
    seeds = np.array([pack_seed(0, 0, number) for number in range(2000)], np.uint64)
    bits = (seeds[:, None] >> np.arange(63, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.06


@pytest.mark.parametrize("window_frames", [None, 100])
def test_an_empty_corpus_has_no_packs(window_frames: int | None) -> None:
    nothing = np.zeros(0, np.int32)
    order = Order(nothing, nothing, 100, 0, window_frames)
    assert (len(order), list(order.packs(0)), order.steps(2).per_epoch) == (0, [], 0)
