"""Speakers of a corpus from the x-vectors of its table: who is who, and how sure one can be."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import package_version, strict_json
from pipeline.errors import JobError
from pipeline.speakers.clustering import LINKAGE_LIMIT, Clustering, cluster
from pipeline.speakers.embeddings import EmbeddingTable
from pipeline.speakers.spec import SpeakersSpec
from pipeline.speakers.summary import Agreement, Speaker, SpeakersFound, Summary, TrialsSummary, as_json
from pipeline.speakers.trials import Trials, find_vectors, score_lines, score_trials, verification
from pipeline.storage import Storage, StorageError, join, place_errors
from pipeline.table.log.place import log_home, require_outside_tables
from pipeline.table.reader import read_footer, read_identity

SPEAKER_COLUMNS: dict[str, pa.DataType] = {
    "clip_id": pa.string(),
    "speaker_id": pa.string(),
    "similarity": pa.float32(),
}
_FILE = "speakers.parquet"
_FACTS = "w2vbert.speakers"  # in the metadata of that file
_SCORES = re.compile(r"[^ \n]+ [^ \n]+ -?\d\.\d{6} (?:non)?target\n")
_LOOKED_AT = 1 << 16
_PACKAGES = ("w2vbert", "scikit-learn", "scipy", "numpy")


def run(spec: SpeakersSpec, *, limit: int = LINKAGE_LIMIT) -> Summary:
    """Does what is asked for; what came of it.

    Args:
        limit: see `cluster`.

    Raises:
        JobError: bad configuration or a table that does not serve; nothing is written then.
    """
    _require_scikit_learn()
    storage = Storage(spec.storage.with_environment())
    source = storage.normalise(spec.table)
    trials = None if spec.trials is None else Trials.read(storage.normalise(spec.trials), storage)
    table = EmbeddingTable.open(source, storage)
    output = None if spec.output is None else storage.normalise(spec.output)
    scores = None if spec.scores is None else storage.normalise(spec.scores)
    if output is not None:
        with place_errors("--output", spec.output or ""):
            _require_own_directory(output, table)
            require_outside_tables(f"--output {output}", output, storage, source)
    if scores is not None:
        with place_errors("--scores", spec.scores or ""):
            _require_own_scores(scores, storage)
            require_outside_tables(f"--scores {scores}", scores, storage, source)
    scored, lines = (None, "") if trials is None else _verify(trials, table)
    clustering = None if output is None else cluster(table, spec.threshold, limit=limit)
    # Nothing is written before all is known.
    if scores is not None:
        with place_errors("--scores", spec.scores or ""):
            storage.write_bytes(scores, lines.encode())
    if output is None or clustering is None:
        return Summary(source, scored)
    facts = {"table": source, "threshold": spec.threshold, "method": clustering.method}
    with place_errors("--output", spec.output or ""):
        counts = _write(clustering, table, join(output, _FILE), facts)
        summary = Summary(source, scored, _found(clustering, counts, spec.threshold, output))
        text = strict_json.dumps(as_json(summary), indent=2) + "\n"
        storage.write_bytes(join(log_home(output, storage), "speakers.json"), text.encode())
    return summary


def _require_scikit_learn() -> None:
    try:
        import sklearn.cluster
        import sklearn.metrics  # noqa: F401
    except ImportError as problem:
        raise JobError(
            f"this job needs scikit-learn ({problem}): pip install 'w2vbert[speakers]'"
        ) from problem


def _require_own_directory(output: str, table: EmbeddingTable) -> None:
    """Refuses an output where something lies that this job did not write and would replace."""
    storage = table.storage
    if storage.is_file(output):
        raise JobError(f"--output {output} is a file, and a directory is needed.")
    held = [uri for uri in storage.list_files(output) if uri.endswith(".parquet")]
    strange = [uri for uri in held if uri in table.files or not _is_ours(uri, storage)]
    home = log_home(output, storage)
    if strange or read_identity(home, storage) is not None:
        raise JobError(
            f"--output {output} holds another table ({[*strange, home][0]}); "
            "speakers are a table of their own, in a directory of their own."
        )


def _is_ours(uri: str, storage: Storage) -> bool:
    """Whether a Parquet file is the table of speakers of an earlier run."""
    if not uri.endswith(f"/{_FILE}"):
        return False
    try:
        metadata = read_footer(uri, storage).schema.metadata or {}
    except StorageError:
        return False
    return _FACTS.encode() in metadata


def _require_own_scores(uri: str, storage: Storage) -> None:
    if not storage.exists(uri):
        return
    if storage.is_dir(uri) or not storage.is_replaceable(uri):
        raise JobError(f"--scores {uri} is no ordinary file that could be replaced as a whole.")
    with storage.open(uri) as file:
        if not _SCORES.match(file.read(_LOOKED_AT).decode(errors="replace")):
            raise JobError(f"--scores {uri} is there already and holds no scores; name another file.")


def _verify(trials: Trials, table: EmbeddingTable) -> tuple[TrialsSummary, str]:
    """What came of the trials, and the lines of their scores."""
    found = find_vectors(trials.names, table)
    known, scores = score_trials(trials, found)
    skipped = len(trials.target) - len(known.target)
    summary = TrialsSummary(verification(known.target, scores), skipped, found.missing)
    return summary, "".join(score_lines(known, scores))


@dataclass
class _Counts:
    """Counted while the rows are written."""

    clips: int = 0
    seconds: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    pairs: Counter[tuple[str, int]] = field(default_factory=Counter)  # (speaker of the input, ours)

    def add(self, rows: pa.RecordBatch, labels: list[int]) -> None:
        self.clips += rows.num_rows
        for name in rows.schema.names:
            values = rows.column(name).to_pylist()
            if name == "duration_s":
                for label, seconds in zip(labels, values, strict=True):
                    known = isinstance(seconds, int | float) and math.isfinite(seconds)
                    self.seconds[label] += seconds if known else 0.0
            elif name == "speaker":
                given = zip(values, labels, strict=True)
                self.pairs.update(
                    (str(true), label) for true, label in given if true is not None and label >= 0
                )


def _write(found: Clustering, table: EmbeddingTable, uri: str, facts: dict[str, object]) -> _Counts:
    """Writes the table of speakers, all of it or nothing."""
    counts = _Counts()
    metadata = {
        _FACTS: strict_json.dumps(facts),
        "w2vbert.versions": strict_json.dumps({name: package_version(name) for name in _PACKAGES}),
    }
    schema = pa.schema(list(SPEAKER_COLUMNS.items()), metadata=metadata)
    with (
        table.storage.writing(uri) as handle,
        pq.ParquetWriter(handle, schema, compression="zstd") as writer,
    ):
        for batch in _labelled(found, table, schema, counts):
            writer.write_batch(batch)
    return counts


def _labelled(
    found: Clustering, table: EmbeddingTable, schema: pa.Schema, counts: _Counts
) -> Iterator[pa.RecordBatch]:
    first = 0
    for batch in table.batches("duration_s", "speaker"):
        labels = found.labels[first : first + len(batch.present)]
        first += len(batch.present)
        similarity = np.zeros(len(labels), np.float32)
        if len(batch.vectors):
            centroids = found.centroids[labels[batch.present]]
            similarity[batch.present] = np.einsum("ij,ij->i", batch.vectors, centroids)
        counts.add(batch.rows, labels.tolist())
        yield pa.record_batch(
            [
                batch.rows.column("clip_id").cast(pa.string()),
                pa.array([_name(label) if label >= 0 else None for label in labels.tolist()], pa.string()),
                pa.array(similarity, mask=~batch.present),
            ],
            schema=schema,
        )


def _found(found: Clustering, counts: _Counts, threshold: float, output: str) -> SpeakersFound:
    largest = [
        Speaker(_name(label), int(size), counts.seconds[label] / 3600 if counts.seconds else None)
        for label, size in enumerate(found.sizes[:5])
    ]
    return SpeakersFound(
        threshold=threshold,
        method=found.method,
        clips=counts.clips,
        embedded=int(found.sizes.sum()),
        speakers=len(found.sizes),
        speakers_of_one_clip=int((found.sizes == 1).sum()),
        largest=largest,
        reference=agreement(counts.pairs) if counts.pairs else None,
        output=output,
    )


def agreement(pairs: Counter[tuple[str, int]]) -> Agreement:
    """How well the speakers found agree with those that the input names.

    Purity is the share of clips whose speaker is the most frequent one of their group. The others: Rosenberg
    and Hirschberg 2007, "V-Measure: a conditional entropy-based external cluster evaluation measure".
    """
    from sklearn.metrics import homogeneity_completeness_v_measure

    names = {name: number for number, name in enumerate(sorted({name for name, _ in pairs}))}
    counts = list(pairs.values())
    true = np.repeat([names[name] for name, _ in pairs], counts)
    ours = np.repeat([label for _, label in pairs], counts)
    homogeneity, completeness, v_measure = homogeneity_completeness_v_measure(true, ours)
    most: dict[int, int] = {}
    for (_, label), count in pairs.items():
        most[label] = max(most.get(label, 0), count)
    return Agreement(
        clips=len(true),
        speakers=len(names),
        purity=sum(most.values()) / len(true),
        homogeneity=float(homogeneity),
        completeness=float(completeness),
        v_measure=float(v_measure),
    )


def _name(label: int) -> str:
    return f"spk_{label + 1:06d}"
