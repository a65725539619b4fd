"""`losses.parquet`: whole parts, nothing twice after a kill, on local disks and on S3."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.storage import Storage, StorageOptions, join
from pipeline.training.batches.batch import Batch, Pack
from pipeline.training.model.losses import TaskLoss
from pipeline.training.report.losses import (
    LOSSES,
    VALID,
    ClipLoss,
    HardClip,
    LossLog,
    clip_losses,
    drop_beyond,
    hard_clips,
    merge,
)
from w2vbert.packing import Packed

STORAGE = Storage(StorageOptions())


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Storage]:
    if request.param == "local":
        return str(tmp_path), STORAGE
    bucket = request.getfixturevalue("bucket")
    return join(bucket, tmp_path.name), Storage(StorageOptions().with_environment())


def loss_of(step: int, rank: int = 0) -> ClipLoss:
    return ClipLoss(f"clip-{step}-{rank}", 1.0, "transcribe", 1 / step, 100, 7)


def run(home: str, storage: Storage, steps: range, ranks: int, *, save: int, dies: int | None = None) -> None:
    """The steps of a start that goes on before the first of them; a save writes parts, a death does not."""
    folder = join(home, "losses")
    drop_beyond(folder, steps.start - 1, storage)
    logs = [LossLog(folder, storage, rank, steps.start - 1) for rank in range(ranks)]
    for step in steps:
        for rank, log in enumerate(logs):
            log.add(step, step // 10, [loss_of(step, rank)])
            if step % save == 0:
                log.flush(step)
        if step == dies:
            return


def merged(home: str, storage: Storage) -> pa.Table:
    target = join(home, "losses.parquet")
    rows = merge(join(home, "losses"), target, storage)
    with storage.open(target) as file:
        table = pq.read_table(file)
    assert table.num_rows == rows
    assert table.schema.equals(LOSSES)
    return table


def test_a_killed_run_has_the_rows_of_one_that_was_not(place: tuple[str, Storage]) -> None:
    home, storage = place
    run(join(home, "whole"), storage, range(1, 41), 2, save=10)
    killed = join(home, "killed")
    run(killed, storage, range(1, 41), 2, save=10, dies=27)
    run(killed, storage, range(21, 41), 2, save=10, dies=30)  # the part of 30 is there, its checkpoint is not
    run(killed, storage, range(21, 41), 2, save=10)
    expected = merged(join(home, "whole"), storage).sort_by("clip_id")
    assert merged(killed, storage).sort_by("clip_id").equals(expected)
    assert expected.num_rows == 80


def test_another_number_of_workers_goes_on(place: tuple[str, Storage]) -> None:
    home, storage = place
    run(home, storage, range(1, 21), 3, save=10)
    run(home, storage, range(11, 31), 1, save=10)
    ids = merged(home, storage)["clip_id"].to_pylist()
    assert sorted(ids) == sorted(
        [f"clip-{step}-{rank}" for step in range(1, 11) for rank in range(3)]
        + [f"clip-{step}-0" for step in range(11, 31)]
    )


def test_columns(tmp_path: Path) -> None:
    log = LossLog(str(tmp_path / "losses"), STORAGE, 0)
    log.add(3, 1, [ClipLoss("a", 0.9, "transcribe", 0.5, 50, 4)])
    log.add(3, 1, [ClipLoss("b", 1.0, "diarize", 0.25, 60, None)], VALID)
    log.flush(3)
    assert merged(str(tmp_path), STORAGE).to_pylist() == [
        {
            "clip_id": "a",
            "speed": pytest.approx(0.9),
            "epoch": 1,
            "step": 3,
            "task": "transcribe",
            "split": "train",
            "loss": 0.5,
            "frames": 50,
            "tokens": 4,
        },
        {
            "clip_id": "b",
            "speed": 1.0,
            "epoch": 1,
            "step": 3,
            "task": "diarize",
            "split": "valid",
            "loss": 0.25,
            "frames": 60,
            "tokens": None,
        },
    ]


def test_a_run_without_rows_has_a_table(tmp_path: Path) -> None:
    LossLog(str(tmp_path / "losses"), STORAGE, 0).flush(5)
    assert not (tmp_path / "losses").exists()
    assert merged(str(tmp_path), STORAGE).num_rows == 0


def test_strangers_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "losses").mkdir()
    (tmp_path / "losses/notes.txt").write_text("mine")
    run(str(tmp_path), STORAGE, range(1, 11), 1, save=5)
    drop_beyond(str(tmp_path / "losses"), 0, STORAGE)
    assert [path.name for path in (tmp_path / "losses").iterdir()] == ["notes.txt"]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(0, 60), st.integers(1, 3))
def test_nothing_after_the_resumed_step_and_all_before(
    tmp_path_factory: pytest.TempPathFactory, parts: list[int], resumed: int, ranks: int
) -> None:
    """Wherever parts end, even in the middle of one."""
    home = tmp_path_factory.mktemp("parts")
    folder = str(home / "losses")
    logs = [LossLog(folder, STORAGE, rank) for rank in range(ranks)]
    step = 0
    for length in parts:
        for _ in range(length):
            step += 1
            for rank, log in enumerate(logs):
                log.add(step, 0, [loss_of(step, rank)])
        for log in logs:
            log.flush(step)
    drop_beyond(folder, resumed, STORAGE)
    drop_beyond(folder, resumed, STORAGE)
    kept = merged(str(home), STORAGE)["clip_id"].to_pylist()
    expected = [f"clip-{step}-{rank}" for step in range(1, min(step, resumed) + 1) for rank in range(ranks)]
    assert sorted(kept) == sorted(expected)


def test_rows_of_a_batch() -> None:
    """A clip without a target, of an infinite loss or of none that is a number has no row; nor have two clips
    that were joined, whose loss is that of neither."""
    texts = [[5, 6], None, [7], [8, 9, 8], [5, 0, 6]]
    batch = Batch(
        Pack(2, 0, np.arange(6)),
        0,
        ["a", "b", "c", "d", "e"],
        [1.0, 0.9, 1.0, 1.1, 1.0],
        Packed(torch.zeros(27, 2), (3, 4, 5, 6, 9)),
        {"transcribe": [None if text is None else torch.tensor(text) for text in texts]},
        joined=[None, None, None, None, "f"],
    )
    nothing, total = math.nan, torch.tensor(0.0)
    losses = {
        "transcribe": TaskLoss(total, 3, torch.tensor([0.5, nothing, math.inf, 0.25, 0.125])),
        "masked-prediction": TaskLoss(total, 9, torch.tensor([nothing, 1.5, nothing, nothing, nothing])),
    }
    assert clip_losses(batch, losses) == [
        ClipLoss("a", 1.0, "transcribe", 0.5, 3, 2),
        ClipLoss("d", 1.1, "transcribe", 0.25, 6, 3),
        ClipLoss("b", 0.9, "masked-prediction", 1.5, 4, None),
    ]


def test_hard_clips(tmp_path: Path) -> None:
    log = LossLog(str(tmp_path / "losses"), STORAGE, 0)
    courses = {
        "easy": (4.0, 0.1),
        "mislabelled": (4.0, 3.9),
        "long": (9.0, 2.0),
        "new": (None, 1.0),
    }
    for epoch in (0, 1):
        for clip_id, course in courses.items():
            if (loss := course[epoch]) is not None:
                log.add(epoch + 1, epoch, [ClipLoss(clip_id, 1.0, "transcribe", loss, 1, 1)])
                log.add(epoch + 1, epoch, [ClipLoss(clip_id, 1.1, "transcribe", 99.0, 1, 1)])
                log.add(epoch + 1, epoch, [ClipLoss(clip_id, 1.0, "transcribe", 98.0, 1, 1)], VALID)
    log.add(2, 1, [ClipLoss("voice", 1.0, "embed", 0.5, 1, None)])
    log.flush(2)
    merge(str(tmp_path / "losses"), str(tmp_path / "losses.parquet"), STORAGE)
    found = hard_clips(str(tmp_path / "losses.parquet"), STORAGE, 2)
    assert found.worst == [
        HardClip("voice", "embed", 0.5, 0.5, 1),
        HardClip("mislabelled", "transcribe", 4.0, pytest.approx(3.9), 2),
        HardClip("long", "transcribe", 9.0, 2.0, 2),
    ]
    assert [clip.clip_id for clip in found.slowest] == ["mislabelled", "long"]
