"""The index as a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.storage import Storage, StorageError, StorageOptions
from pipeline.training.examples.building import SKIPPED, write_skipped
from pipeline.training.examples.index import Index, Ragged, Targets
from tests.pipeline.training.tables import STORAGE


def index() -> Index:
    values = Ragged(np.array([3, 1, 2], np.int32), np.array([0, 2, 2, 3]))
    return Index(
        pa.array(["a", "b", "ü"]),
        np.array([1, 1, 0.9], np.float32),
        ["/t/0.parquet", "/t/1.parquet"],
        np.array([0, 1, 1], np.int32),
        np.array([5, 0, 1], np.int32),
        np.array([50, 60, 70], np.int32),
        {"transcribe": Targets(np.array([True, False, True]), values)},
    )


def assert_same(found: Index, expected: Index) -> None:
    assert found.clip_ids.equals(expected.clip_ids)
    for name in ("speeds", "file", "row", "frames"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    assert list(found.files) == list(expected.files)
    assert found.targets.keys() == expected.targets.keys()
    for task, targets in expected.targets.items():
        np.testing.assert_array_equal(found.targets[task].has, targets.has)
        assert [found.targets[task].values[n].tolist() for n in range(len(expected))] == [
            targets.values[n].tolist() for n in range(len(expected))
        ]
    assert found.digest == expected.digest


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    uri = str(tmp_path / "index.arrow")
    index().save(uri, STORAGE)
    assert_same(Index.load(uri, STORAGE), index())
    with pytest.raises(StorageError, match="does not exist"):
        Index.load(str(tmp_path / "nothing"), STORAGE)


def test_in_an_object_store_too(bucket: str) -> None:
    storage = Storage(StorageOptions().with_environment())
    index().save(f"{bucket}/index.arrow", storage)
    assert_same(Index.load(f"{bucket}/index.arrow", storage), index())


def test_the_digest_tells_what_order_and_targets_follow_from() -> None:
    one, targets = index(), index().targets["transcribe"]
    others = [
        replace(one, frames=one.frames + 1),
        replace(one, clip_ids=pa.array(["a", "b", "c"])),
        replace(one, clip_ids=pa.array(["ab", "", "ü"])),
        replace(one, file=one.file[::-1]),
        replace(one, targets={}),
        replace(one, targets={"classify": targets}),
        replace(
            one,
            targets={
                "transcribe": replace(targets, values=Ragged(targets.values.values, np.array([0, 1, 2, 3])))
            },
        ),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 1 + len(others)
    assert replace(one, files=["s3://b/0", "s3://b/1"]).digest == one.digest
    assert replace(one, clip_ids=pa.array(["x", "a", "b", "ü"]).slice(1)).digest == one.digest


@given(st.lists(st.lists(st.integers(-5, 5), max_size=4), max_size=6), st.data())
def test_sequences_are_taken_in_any_order(lists: list[list[int]], data: st.DataObject) -> None:
    offsets = np.concatenate(([0], np.cumsum([len(one) for one in lists]))).astype(np.int64)
    ragged = Ragged(np.array([n for one in lists for n in one], np.int32), offsets)
    indices = data.draw(st.lists(st.integers(0, len(lists) - 1))) if lists else []
    taken = ragged.take(np.array(indices, np.int64))
    assert [taken[n].tolist() for n in range(len(indices))] == [lists[n] for n in indices]


def test_what_is_skipped_is_a_table(tmp_path: Path) -> None:
    rows = pa.table([["a"], [1.0], [None], ["silent"], [None]], schema=SKIPPED)
    write_skipped(rows, str(tmp_path / "skipped.parquet"), STORAGE)
    assert pq.read_table(tmp_path / "skipped.parquet").equals(rows)


@pytest.mark.parametrize(
    "tasks",
    [{}, {"classify": Targets(np.zeros(0, np.bool_), Ragged(np.zeros(0, np.int32), np.zeros(1, np.int64)))}],
)
def test_an_index_may_be_empty(tmp_path: Path, tasks: dict[str, Targets]) -> None:
    empty = np.zeros(0, np.int32)
    nothing = Index(pa.array([], pa.string()), np.zeros(0, np.float32), [], empty, empty, empty, tasks)
    nothing.save(str(tmp_path / "index"), STORAGE)
    assert_same(Index.load(str(tmp_path / "index"), STORAGE), nothing)
