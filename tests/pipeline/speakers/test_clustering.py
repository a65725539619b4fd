"""x-vectors to speakers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from pipeline.errors import JobError
from pipeline.speakers.clustering import Clustering, average_linkage, cluster, micro_clusters
from pipeline.speakers.embeddings import EmbeddingTable
from pipeline.storage import Storage, StorageOptions

STORAGE = Storage(StorageOptions())
WIDTH = 64

Floats = npt.NDArray[np.float32]


def voices(sizes: Sequence[int], similarity: float, seed: int = 0) -> tuple[Floats, npt.NDArray[np.int64]]:
    """So many vectors of each speaker, of about that similarity, and their speakers."""
    random = np.random.default_rng(seed)
    speaker = np.repeat(np.arange(len(sizes)), sizes)
    centres = np.linalg.qr(random.standard_normal((WIDTH, WIDTH)))[0][: speaker.max() + 1]
    noise = random.standard_normal((len(speaker), WIDTH)) / np.sqrt(WIDTH)
    vectors = centres[speaker] + np.sqrt(1 / similarity - 1) * noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), speaker


def write(folder: Path, ids: list[str], vectors: list[Floats | None], files: int = 1) -> EmbeddingTable:
    folder.mkdir(exist_ok=True)
    rows = [None if vector is None else vector.tolist() for vector in vectors]
    table = pa.table({"clip_id": ids, "embedding": pa.array(rows, pa.list_(pa.float32(), WIDTH))})
    for part in range(files):
        first, last = (len(ids) * i // files for i in (part, part + 1))
        pq.write_table(table.slice(first, last - first), folder / f"{part}.parquet")
    return EmbeddingTable.open(str(folder), STORAGE)


def by_id(ids: list[str], found: Clustering) -> dict[str, int]:
    return dict(zip(ids, found.labels.tolist(), strict=True))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=8),
    st.floats(0.3, 0.9),
    st.floats(0.1, 0.9),
    st.integers(0, 99),
)
def test_linkage_is_that_of_scikit_learn(
    sizes: list[int], similarity: float, threshold: float, seed: int
) -> None:
    vectors, _ = voices(sizes, similarity, seed)
    found = average_linkage(vectors, threshold)
    assert found.min() == 0
    if len(vectors) > 1:
        peer = AgglomerativeClustering(
            n_clusters=None, metric="cosine", linkage="average", distance_threshold=1 - threshold
        ).fit_predict(vectors)
        assert adjusted_rand_score(found, peer) == 1


def test_linkage_of_means_is_that_of_their_members() -> None:
    """Two tight pairs of groups: whether they meet depends on the mean similarity of all pairs of members."""
    vectors, speaker = voices([30, 30], 0.5, seed=3)
    means = np.stack([vectors[speaker == 0][:15].mean(0), vectors[speaker == 0][15:].mean(0)])
    between = (vectors[speaker == 0][:15] @ vectors[speaker == 0][15:].T).mean()
    assert average_linkage(means, between - 1e-4).tolist() == [0, 0]
    assert len(set(average_linkage(means, between + 1e-4).tolist())) == 2


@pytest.mark.parametrize("limit", [10_000, 60])
def test_speakers_far_apart_are_found_numbered_by_their_clips(tmp_path: Path, limit: int) -> None:
    sizes = [5, 40, 20, 1, 30]
    vectors, speaker = voices(sizes, 0.9)
    order = np.random.default_rng(1).permutation(len(vectors))
    ids = [f"{speaker[i]}-{i:03d}" for i in order]
    embeddings: list[Floats | None] = [*vectors[order], None, np.full(WIDTH, np.nan), np.zeros(WIDTH)]
    ids += ["null", "nan", "zeros"]
    table = write(tmp_path / "t", ids, embeddings, files=3)
    found = cluster(table, 0.7, limit=limit)
    assert ("BIRCH" in found.method) == (limit == 60)
    rank = {1: 0, 4: 1, 2: 2, 0: 3, 3: 4}
    assert by_id(ids, found) == {name: rank[int(name[0])] for name in ids[:-3]} | dict.fromkeys(ids[-3:], -1)
    assert found.sizes.tolist() == [40, 30, 20, 5, 1]
    for number, label in rank.items():
        mean = vectors[speaker == number].mean(0)
        np.testing.assert_allclose(found.centroids[label], mean / np.linalg.norm(mean), atol=1e-5)


def test_speakers_that_blend_are_the_same_whatever_the_order_of_rows(tmp_path: Path) -> None:
    vectors, _ = voices([30, 30, 30, 30], 0.45, seed=5)
    ids = [f"clip-{i:03d}" for i in range(len(vectors))]
    results = []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(ids))
        shuffled = [ids[i] for i in order]
        table = write(tmp_path / str(seed), shuffled, list(vectors[order]), files=seed + 1)
        results.append(by_id(shuffled, cluster(table, 0.45)))
    assert results[1:] == results[:1] * 3
    assert 4 < len(set(results[0].values())) < 120  # they do blend: not simply one group a speaker
    assert list(np.bincount(list(results[0].values()))) == sorted(
        np.bincount(list(results[0].values())), reverse=True
    )


def test_condensed_first_the_groups_are_nearly_the_same(tmp_path: Path) -> None:
    vectors, speaker = voices([60] * 20, 0.7, seed=7)
    order = np.random.default_rng(7).permutation(len(vectors))
    table = write(tmp_path / "t", [f"{i:05d}" for i in range(len(vectors))], list(vectors[order]))
    whole, condensed = cluster(table, 0.5), cluster(table, 0.5, limit=300)
    assert condensed.method.startswith("BIRCH")
    assert adjusted_rand_score(whole.labels, speaker[order]) > 0.99
    assert adjusted_rand_score(condensed.labels, speaker[order]) > 0.95


def test_a_tree_that_outgrows_the_limit_is_built_anew_and_looser() -> None:
    vectors, _ = voices([100] * 5, 0.75, seed=2)
    batches = np.array_split(vectors[np.random.default_rng(2).permutation(500)], 10)
    tight = micro_clusters(iter(batches), 0.6, limit=500)
    assert len(tight) > 100
    loose = micro_clusters(iter(batches), 0.6, limit=100)
    assert 5 <= len(loose) <= 100


def test_more_voices_than_can_be_compared(tmp_path: Path) -> None:
    vectors, _ = voices([1] * 60, 0.9)
    table = write(tmp_path / "t", [str(i) for i in range(60)], list(vectors))
    with pytest.raises(JobError, match=r"more than 50 groups that differ by --threshold 0\.7"):
        cluster(table, 0.7, limit=50)
    assert len(cluster(table, 0.7).sizes) == 60


@pytest.mark.parametrize("limit", [10, 1])
def test_a_table_of_nothing_but_failures(tmp_path: Path, limit: int) -> None:
    table = write(tmp_path / "t", ["a", "b"], [None, None])
    with pytest.raises(JobError, match="none of the table's 2 rows has an embedding"):
        cluster(table, 0.7, limit=limit)


def test_one_clip_is_one_speaker(tmp_path: Path) -> None:
    found = cluster(write(tmp_path / "t", ["a"], [np.eye(WIDTH, dtype=np.float32)[0] * 3]), 0.7)
    assert (found.labels.tolist(), found.sizes.tolist()) == ([0], [1])
    np.testing.assert_array_equal(found.centroids[0], np.eye(WIDTH)[0])
