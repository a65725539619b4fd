"""x-vectors of a corpus to speakers: average linkage on cosine distance, above a limit after BIRCH."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.cluster.hierarchy import fcluster, linkage

from pipeline.errors import JobError
from pipeline.speakers.embeddings import EmbeddingTable, Vectors

# Rows. Average linkage holds the distances of all pairs, twice: 0.8 GB for this many.
LINKAGE_LIMIT = 10_000
_BLOCK = 256
_LOOSEN = 1.1

Labels = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Clustering:
    """Who speaks in the rows of a table.

    Attributes:
        method: in words.
        labels: (rows,), the speaker of each row, 0 having the most clips; -1 without an embedding.
        sizes: (speakers,), their clips.
        centroids: (speakers, width), the direction of their mean embedding, of unit length.
    """

    method: str
    labels: Labels
    sizes: npt.NDArray[np.int64]
    centroids: Vectors


def cluster(table: EmbeddingTable, threshold: float, *, limit: int = LINKAGE_LIMIT) -> Clustering:
    """Groups rows until no two groups have a mean cosine similarity of `threshold` or more between them.

    A table of up to `limit` rows is clustered as it is, whatever the order of its rows. A larger one is first
    condensed to at most `limit` groups of very similar embeddings, which depend a little on that order.

    Raises:
        JobError: no embeddings, or more groups than `limit` even at the threshold.
    """
    if table.rows <= limit:
        return _cluster_whole(table, threshold)
    return _cluster_condensed(table, threshold, limit)


def average_linkage(means: Vectors, threshold: float) -> Labels:
    """(groups,): a label for each, from 0, the same for those that belong together.

    Args:
        means: (groups, width), the mean of each group's unit vectors: a unit vector for a group of one. The
            product of two means is the mean cosine similarity of their members, which average linkage (UPGMA;
            Sokal and Michener 1958, "A statistical method for evaluating systematic relationships") is about.
    """
    count = len(means)
    if count < 2:
        return np.zeros(count, np.int32)
    distances = np.empty(count * (count - 1) // 2)  # the upper triangle, row by row
    filled = 0
    for first in range(0, count, _BLOCK):
        for row, similarities in enumerate(means[first : first + _BLOCK] @ means[first:].T):
            after = similarities[row + 1 :]
            np.subtract(1, after, out=distances[filled : filled + len(after)])
            filled += len(after)
    np.maximum(distances, 0, out=distances)
    tree = linkage(distances, method="average")
    labels: Labels = fcluster(tree, t=1 - threshold, criterion="distance").astype(np.int32) - 1
    return labels


def micro_clusters(batches: Iterator[Vectors], threshold: float, limit: int) -> Vectors:
    """(at most `limit`, width): centres of groups so tight that average linkage would have made them too.

    BIRCH (Zhang et al. 1996, "BIRCH: an efficient data clustering method for very large databases") adds a
    vector to a group while the group's radius, the root mean square distance to its centre, stays small. Unit
    vectors of mean pairwise similarity s have the radius √(1 - s). At first s = (1 + threshold) / 2, so that
    two vectors meet only if their similarity reaches the threshold; where that makes too many groups the tree
    is built again, looser, at most until s is the threshold.
    """
    from sklearn.cluster import Birch

    def tree(radius: float) -> Birch:
        return Birch(threshold=radius, n_clusters=None, compute_labels=False)

    radius, loosest = np.sqrt((1 - threshold) / 2), np.sqrt(1 - threshold)
    birch = tree(radius)
    centres = np.zeros((0, 0), np.float32)
    for vectors in batches:
        centres = birch.partial_fit(vectors).subcluster_centers_
        while len(centres) > limit:
            if radius >= loosest:
                raise JobError(
                    f"--table holds more than {limit} groups that differ by --threshold {threshold:g}, too "
                    "many to compare all with all: lower it, or cluster parts of the table (a glob)."
                )
            radius = min(radius * _LOOSEN, loosest)
            birch = tree(radius)
            centres = birch.partial_fit(centres).subcluster_centers_
    return np.asarray(centres, np.float32)


def _cluster_whole(table: EmbeddingTable, threshold: float) -> Clustering:
    labels = np.full(table.rows, -1, np.int32)
    present, parts, ids = [], [], []
    for batch in table.batches():
        present.append(batch.present)
        parts.append(batch.vectors)
        ids.append(batch.rows.column("clip_id").filter(pa.array(batch.present)).cast(pa.string()))
    if not any(map(len, parts)):
        raise _nothing(table)
    vectors = np.concatenate([part for part in parts if len(part)])
    # Ties, and the numbers of speakers with as many clips, are decided by the ids.
    order = np.argsort(pa.concat_arrays(ids).to_numpy(zero_copy_only=False), kind="stable")
    by_id = _largest_first(average_linkage(vectors[order], threshold))
    found = np.empty_like(by_id)
    found[order] = by_id
    labels[np.concatenate(present)] = found
    sums = np.zeros((by_id.max() + 1, vectors.shape[1]))
    np.add.at(sums, by_id, vectors[order])
    return Clustering("average linkage", labels, np.bincount(by_id), _directions(sums))


def _cluster_condensed(table: EmbeddingTable, threshold: float, limit: int) -> Clustering:
    centres = micro_clusters(
        (batch.vectors for batch in table.batches() if len(batch.vectors)), threshold, limit
    )
    if not len(centres):
        raise _nothing(table)
    nearest = np.full(table.rows, -1, np.int32)
    sums, counts = np.zeros(centres.shape), np.zeros(len(centres), np.int64)
    directions = _directions(centres)
    first = 0
    for batch in table.batches():
        if len(batch.vectors):
            mine = (batch.vectors @ directions.T).argmax(axis=1)
            nearest[first : first + len(batch.present)][batch.present] = mine
            np.add.at(sums, mine, batch.vectors)
            counts += np.bincount(mine, minlength=len(centres))
        first += len(batch.present)
    used = counts > 0
    group = np.full(len(centres), -1, np.int32)
    group[used] = average_linkage((sums[used] / counts[used, None]).astype(np.float32), threshold)
    labels = np.full(table.rows, -1, np.int32)
    embedded = nearest >= 0
    labels[embedded] = _largest_first(group[nearest[embedded]])
    # Micro-clusters take the numbers of their members, to add their sums up.
    group[nearest[embedded]] = labels[embedded]
    totals = np.zeros((group.max() + 1, centres.shape[1]))
    np.add.at(totals, group[used], sums[used])
    method = f"BIRCH to {used.sum()} micro-clusters, then average linkage"
    return Clustering(method, labels, np.bincount(labels[embedded]), _directions(totals))


def _largest_first(labels: Labels) -> Labels:
    """The same groups, numbered by size; of equal ones the first to occur comes first."""
    _, first, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), np.int32)
    rank[np.lexsort((first, -counts))] = np.arange(len(counts))
    return rank[inverse]


def _directions(vectors: npt.NDArray[np.floating]) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions: Vectors = (vectors / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
    return directions


def _nothing(table: EmbeddingTable) -> JobError:
    return JobError(f"--table {table.files[0]}: none of the table's {table.rows} rows has an embedding.")
