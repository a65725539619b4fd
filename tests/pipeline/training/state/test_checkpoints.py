"""Checkpoints: complete or absent, the best and the last kept."""

from pathlib import Path

import pytest
import torch

from pipeline.errors import JobError
from pipeline.storage import Storage, StorageOptions
from pipeline.training.state.checkpoints import Begun, Checkpoints, Kept, Progress, Snapshot

STORAGE = Storage(StorageOptions())


def snapshot(step: int, wer: float | None = None) -> Snapshot:
    earlier = [{"step": 1.0, "wer": 0.9}]
    measured = earlier if wer is None else [*earlier, {"step": float(step), "wer": wer}]
    weights = {"w": torch.full((3,), float(step)), "frozen": torch.full((2,), 7.0)}
    optimiser = {"w": {"exp_avg": torch.full((3,), step / 2), "step": torch.tensor(float(step))}}
    return Snapshot(Progress(step, measured=measured), weights, optimiser, {"w": torch.ones(3)})


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in (path / "checkpoints").iterdir())


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path), STORAGE)
    assert checkpoints.newest() is None
    checkpoints.save(snapshot(3, wer=0.5))
    checkpoints.save(snapshot(12))
    assert checkpoints.newest() == 12
    held = checkpoints.load(12)
    assert held.progress == Progress(12, measured=[{"step": 1.0, "wer": 0.9}])
    assert held.weights["w"].tolist() == [12.0] * 3
    assert held.optimiser["w"]["exp_avg"].tolist() == [6.0] * 3
    assert held.average is not None
    assert held.average["w"].tolist() == [1.0] * 3
    published = checkpoints.weights(12)
    assert published["w"].tolist() == [1.0] * 3  # the averaged ones are published
    assert published["frozen"].tolist() == [7.0] * 2  # what has no average too


@pytest.mark.parametrize("file", ["weights.safetensors", "optimiser.pt", "progress.json", "complete.json"])
@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_an_incomplete_one_does_not_count(tmp_path: Path, file: str, harm: str) -> None:
    checkpoints = Checkpoints(str(tmp_path), STORAGE)
    checkpoints.save(snapshot(3))
    checkpoints.save(snapshot(12))
    damaged = tmp_path / "checkpoints" / "step-00000012" / file
    if harm == "gone":
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:-1])
    assert checkpoints.newest() == 3
    checkpoints.save(snapshot(12))
    assert checkpoints.newest() == 12
    assert checkpoints.load(12).weights["w"].tolist() == [12.0] * 3


def test_the_best_and_the_last_stay(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path), STORAGE)
    kept = Kept(last=2, best=2, metric="wer")
    for step, wer in [(10, 0.5), (20, 0.1), (30, 0.1), (40, None), (50, 0.4), (60, 0.3), (70, None)]:
        checkpoints.save(snapshot(step, wer))
        checkpoints.prune(kept)
    assert names(tmp_path) == ["step-00000020", "step-00000030", "step-00000060", "step-00000070"]
    assert checkpoints.best(kept)[:2] == [30, 20]
    assert checkpoints.best(Kept(metric="wer", higher=True))[0] == 60
    (tmp_path / "checkpoints" / "step-00000099").mkdir()
    (tmp_path / "checkpoints" / "step-00000099" / "weights.safetensors").write_bytes(b"cut")
    checkpoints.prune(Kept(last=1, best=0))
    assert names(tmp_path) == ["step-00000070"]


def test_what_a_run_began_with_stays(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path), STORAGE)
    assert checkpoints.begun() is None
    first = Begun("sha256:1", 100, 2, 4096, None)
    assert checkpoints.begin(first) == first
    assert checkpoints.begin(Begun("sha256:1", 120, 4, 4096, None)) == first
    (tmp_path / "checkpoints" / "begun.json").write_text("{")
    with pytest.raises(JobError, match="damaged"):
        checkpoints.begun()


def test_who_lost_the_lock_writes_nothing(tmp_path: Path) -> None:
    def lost() -> None:
        raise JobError("the lock is lost")

    checkpoints = Checkpoints(str(tmp_path), STORAGE, lost)
    for write in (lambda: checkpoints.save(snapshot(1)), lambda: checkpoints.prune(Kept())):
        with pytest.raises(JobError, match="lost"):
            write()
    assert not (tmp_path / "checkpoints").exists()
