"""Speakers of a corpus from the x-vectors of its table: who is who, and how sure one can be."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline import package_version
from pipeline.errors import JobError
from pipeline.speakers.clustering import LINKAGE_LIMIT, Clustering, cluster
from pipeline.speakers.embeddings import EmbeddingTable
from pipeline.speakers.trials import (
    Trials,
    find_voices,
    score_lines,
    score_trials,
    told_missing,
    verification,
)
from pipeline.storage import Storage, StorageError, StorageOptions, join

SPEAKER_COLUMNS: dict[str, pa.DataType] = {
    "clip_id": pa.string(),
    "speaker_id": pa.string(),
    "similarity": pa.float32(),
}
_FILE = "speakers.parquet"
_PACKAGES = ("w2vbert", "scikit-learn", "scipy", "numpy")


class SpeakersSpec(BaseModel):
    """Group the x-vectors of a table into speakers, and score a list of verification trials."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str = Field(
        min_length=1,
        description="table with x-vectors: a directory, a glob or a Parquet file, local or s3://",
    )
    output: str | None = Field(
        None,
        min_length=1,
        description="directory or s3:// URI for the speaker of each clip; replaces those of an earlier run",
    )
    threshold: float = Field(
        0.7,
        gt=-1,
        lt=1,
        description="least mean cosine similarity between the clips of two groups that become one speaker; "
        "depends on the checkpoint, and a trial list gives it (the threshold of the EER)",
    )
    trials: str | None = Field(
        None,
        min_length=1,
        description="trial list: lines '1|0 enroll test', or 'enroll test target|nontarget'; clips go by "
        "clip_id, key or path",
    )
    scores: str | None = Field(None, min_length=1, description="file to write the scored trials to")
    storage: StorageOptions = Field(default_factory=lambda: StorageOptions(), description="access to s3://")

    @model_validator(mode="after")
    def _something_to_do(self) -> SpeakersSpec:
        if self.output is None and self.trials is None:
            raise ValueError(
                "nothing to do: give --output to find speakers, --trials to score trials, or both"
            )
        if self.scores is not None and self.trials is None:
            raise ValueError("scores: there is nothing to score without --trials")
        return self


def run(spec: SpeakersSpec, *, limit: int = LINKAGE_LIMIT) -> dict[str, Any]:
    """Does what is asked for; what came of it.

    Args:
        limit: see `cluster`.

    Raises:
        JobError: bad configuration or a table that does not serve; nothing is written then.
    """
    try:
        import sklearn.cluster
        import sklearn.metrics  # noqa: F401
    except ImportError as problem:
        raise JobError(
            f"this job needs scikit-learn ({problem}): pip install 'w2vbert[speakers]'"
        ) from problem
    storage = Storage(spec.storage.with_environment())
    source = storage.normalise(spec.table)
    trials = None if spec.trials is None else Trials.read(storage.normalise(spec.trials), storage)
    table = EmbeddingTable.open(source, storage)
    output = None if spec.output is None else storage.normalise(spec.output)
    if output is not None:
        _require_own_directory(output, table)
    summary: dict[str, Any] = {"table": source}
    if trials is not None:
        summary["trials"] = _verify(trials, table, spec, storage)
    if output is not None:
        found = cluster(table, spec.threshold, limit=limit)
        facts = {"table": source, "threshold": spec.threshold, "method": found.method}
        try:
            summary |= {**facts, **_write(found, table, output, facts, storage), "output": output}
            text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
            storage.write_bytes(join(output, "_run", "speakers.json"), text.encode())
        except JobError:
            raise
        except StorageError as problem:
            raise JobError(f"--output {problem}.") from problem
    return summary


def _require_own_directory(output: str, table: EmbeddingTable) -> None:
    try:
        held = [uri for uri in table.storage.list_files(output) if uri.endswith(".parquet")]
    except StorageError as problem:
        raise JobError(f"--output {problem}.") from problem
    ours = join(output, _FILE)
    if strange := [uri for uri in held if uri != ours or uri in table.files]:
        raise JobError(
            f"--output {output} holds another table ({strange[0]}); "
            "speakers are a table of their own, in a directory of their own."
        )


def _verify(trials: Trials, table: EmbeddingTable, spec: SpeakersSpec, storage: Storage) -> dict[str, Any]:
    voices = find_voices(trials.names, table)
    known, scores = score_trials(trials, voices)
    found = verification(known.target, scores)
    if spec.scores is not None:
        uri = storage.normalise(spec.scores)
        try:
            storage.write_bytes(uri, "".join(score_lines(known, scores)).encode())
        except StorageError as problem:
            raise JobError(f"--scores {problem}.") from problem
    return {
        **asdict(found),
        "min_dcf": [
            {"p_target": p_target, "cost": cost, "threshold": threshold if math.isfinite(threshold) else None}
            for p_target, (cost, threshold) in found.min_dcf.items()
        ],
        "skipped": len(trials.target) - len(known.target),
        "missing_names": {why: len(names) for why, names in voices.missing.items()},
        "missing": told_missing(voices.missing),
    }


@dataclass
class _Seen:
    """What passes by while the rows are written."""

    clips: int = 0
    seconds: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    pairs: Counter[tuple[str, int]] = field(default_factory=Counter)  # (speaker of the input, ours)

    def add(self, rows: pa.RecordBatch, labels: list[int]) -> None:
        self.clips += rows.num_rows
        for name in rows.schema.names:
            values = rows.column(name).to_pylist()
            if name == "duration_s":
                for label, seconds in zip(labels, values, strict=True):
                    self.seconds[label] += seconds or 0.0
            elif name == "speaker":
                given = zip(values, labels, strict=True)
                self.pairs.update(
                    (str(true), label) for true, label in given if true is not None and label >= 0
                )


def _write(
    found: Clustering, table: EmbeddingTable, output: str, facts: Mapping[str, Any], storage: Storage
) -> dict[str, Any]:
    """Writes the table of speakers, all of it or nothing; counts for the summary."""
    seen = _Seen()
    metadata = {
        "w2vbert.speakers": json.dumps(facts, ensure_ascii=False),
        "w2vbert.versions": json.dumps({name: package_version(name) for name in _PACKAGES}),
    }
    schema = pa.schema(list(SPEAKER_COLUMNS.items()), metadata=metadata)
    with (
        storage.writing(join(output, _FILE)) as handle,
        pq.ParquetWriter(handle, schema, compression="zstd") as writer,
    ):
        for batch in _labelled(found, table, schema, seen):
            writer.write_batch(batch)
    largest = [
        {"speaker_id": _name(label), "clips": int(size)} | _hours(seen.seconds, label)
        for label, size in enumerate(found.sizes[:5])
    ]
    return {
        "clips": seen.clips,
        "embedded": int(found.sizes.sum()),
        "speakers": len(found.sizes),
        "speakers_of_one_clip": int((found.sizes == 1).sum()),
        "largest": largest,
        "reference": _agreement(seen.pairs) if seen.pairs else None,
    }


def _labelled(
    found: Clustering, table: EmbeddingTable, schema: pa.Schema, seen: _Seen
) -> Iterator[pa.RecordBatch]:
    first = 0
    for batch in table.batches("duration_s", "speaker"):
        labels = found.labels[first : first + len(batch.present)]
        first += len(batch.present)
        similarity = np.zeros(len(labels), np.float32)
        if len(batch.vectors):
            centroids = found.centroids[labels[batch.present]]
            similarity[batch.present] = np.einsum("ij,ij->i", batch.vectors, centroids)
        seen.add(batch.rows, labels.tolist())
        yield pa.record_batch(
            [
                batch.rows.column("clip_id").cast(pa.string()),
                pa.array([_name(label) if label >= 0 else None for label in labels.tolist()], pa.string()),
                pa.array(similarity, mask=~batch.present),
            ],
            schema=schema,
        )


def _agreement(pairs: Counter[tuple[str, int]]) -> dict[str, Any]:
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
    return {
        "clips": len(true),
        "speakers": len(names),
        "purity": sum(most.values()) / len(true),
        "homogeneity": float(homogeneity),
        "completeness": float(completeness),
        "v_measure": float(v_measure),
    }


def _name(label: int) -> str:
    return f"spk_{label + 1:06d}"


def _hours(seconds: Mapping[int, float], label: int) -> dict[str, float]:
    return {"hours": seconds[label] / 3600} if seconds else {}


def for_the_eye(summary: Mapping[str, Any]) -> str:
    """The summary as a person reads it at the end of a run."""
    lines = []
    if (trials := summary.get("trials")) is not None:
        lines.append(("trials", f"{trials['targets']} target, {trials['nontargets']} nontarget"))
        if trials["skipped"]:
            lines.append(("", f"{trials['skipped']} skipped: {trials['missing']}"))
        lines.append(("EER", f"{trials['eer']:.2%} at {trials['eer_threshold']:.3f}"))
        for at in trials["min_dcf"]:
            where = "where all are rejected" if at["threshold"] is None else f"at {at['threshold']:.3f}"
            lines.append(("minDCF", f"{at['cost']:.3f} {where} (p_target {at['p_target']:g})"))
    if "speakers" in summary:
        clips = f"{summary['clips']} ({summary['embedded']} with an embedding)"
        lines.append(("clips", clips))
        lines.append(
            ("speakers", f"{summary['speakers']}, {summary['speakers_of_one_clip']} of a single clip")
        )
        lines.append(("threshold", f"{summary['threshold']:g} ({summary['method']})"))
        for speaker in summary["largest"]:
            hours = f", {speaker['hours']:.2f} h" if "hours" in speaker else ""
            lines.append(("", f"{speaker['speaker_id']}: {speaker['clips']} clips{hours}"))
        if (given := summary["reference"]) is not None:
            lines.append(
                ("purity", f"{given['purity']:.3f} by the {given['speakers']} speakers of the input")
            )
            parts = f"homogeneity {given['homogeneity']:.3f}, completeness {given['completeness']:.3f}"
            lines.append(("V-measure", f"{given['v_measure']:.3f} ({parts})"))
        lines.append(("output", summary["output"]))
    return "\n".join(f"{name:<12}{value}" for name, value in lines)
