"""Small shards share read tasks, and none is opened before its task needs it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.corpus.clips import Shard
from pipeline.corpus.parts import Part, Selection, bundles, split_all
from pipeline.corpus.readers import READERS
from pipeline.storage import Storage, StorageOptions

STORAGE = Storage(StorageOptions())


def shards(count: int, format: str = "tar", size: int = 10_000) -> list[Shard]:
    return [Shard(f"/{format}/{n}", f"{n}", format, size, "v1") for n in range(count)]


@pytest.mark.slow
def test_ten_thousand_small_shards_are_read_by_few_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: Any, **__: Any) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(Storage, "open", opened)
    for format, size in (("tar", 10_000), ("parquet", 30_000), ("manifest", 500), ("audio", 10**9)):
        many = shards(10_000, format, size)
        tasks = list(bundles(split_all(many, STORAGE)))
        assert [part.shard for task in tasks for part in task] == many
        assert {len(task) for task in tasks} == {64, 16}
        assert all(part.slice is None for task in tasks for part in task)


def test_large_shards_have_tasks_of_their_own() -> None:
    def sizes(format: str, size: int) -> set[int]:
        return {
            len(task) for task in bundles([Part(each, READERS[format]) for each in shards(32, format, size)])
        }

    assert sizes("tar", 100 << 20) == {1}
    assert sizes("tar", 8 << 20) == {2}
    assert sizes("tar", 1 << 20) == {16}
    assert sizes("manifest", 76_800) == {1}  # 256 clips to decode
    assert sizes("manifest", 7_680) == {10, 2}
    mixed = [*shards(3, "audio"), *shards(1, "tar", 1 << 30), *shards(2, "audio")]
    tasks = bundles([Part(each, READERS[each.format]) for each in mixed])
    assert [[part.shard.format for part in task] for task in tasks] == [["tar"], ["audio"] * 5]


@given(
    st.lists(st.tuples(st.sampled_from(["tar", "audio", "manifest"]), st.integers(0, 1 << 25)), max_size=200)
)
def test_every_part_is_read_once(described: list[tuple[str, int]]) -> None:
    parts = [
        Part(Shard(str(n), str(n), format, size, "v"), READERS[format])
        for n, (format, size) in enumerate(described)
    ]
    tasks = list(bundles(parts))
    assert sorted(int(part.shard.uri) for task in tasks for part in task) == list(range(len(parts)))
    for task in tasks:
        held = sum(part.size for part in task if not part.reader.one_clip and not part.reader.lists_files)
        assert 0 < len(task) <= 64
        assert len(task) == 1 or held <= 16 << 20


def test_a_task_is_told_of_its_own_shards_alone() -> None:
    done = {f"/tar/{n}": pa.array([f"{n}#x"]) for n in range(10)}
    few = [Part(each, READERS["tar"]) for each in shards(12)[8:]]
    assert set(Selection("x", done).of(few).done) == {"/tar/8", "/tar/9"}
    assert Selection("x", done).of(few).where == "x"
