"""Speaker verification: how well the cosine of two x-vectors tells same from different, by a trial list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.clip_names import names_of, read_fields
from pipeline.errors import JobError
from pipeline.speakers.embeddings import EmbeddingTable, Vectors
from pipeline.storage import Storage

P_TARGETS = (0.01, 0.05)  # the first as in NIST SRE, the second as in VoxSRC
_PAIRS = 65536
_UNKNOWN = 99  # less sure than any name of a clip

Floats = npt.NDArray[np.float64]


@dataclass
class Trials:
    """Pairs of clips: (trials,) indices into `names`, and whether both are of one speaker."""

    names: list[str]
    enroll: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    target: npt.NDArray[np.bool_]

    @classmethod
    def read(cls, uri: str, storage: Storage) -> Trials:
        """Lines `1 enroll test` or `0 enroll test` (VoxCeleb), or `enroll test target|nontarget` (Kaldi).

        Raises:
            JobError: no such file, a line that is neither, or not both kinds of trials.
        """
        index: dict[str, int] = {}
        found: list[tuple[int, int, bool]] = []
        for number, fields in read_fields("--trials", uri, storage):
            match fields:
                case [enroll, test, "target" | "nontarget" as kind]:
                    target = kind == "target"
                case ["0" | "1" as label, enroll, test]:
                    target = label == "1"
                case _:
                    raise JobError(
                        f"--trials {uri}, line {number}: neither '0|1 enroll test' nor "
                        f"'enroll test target|nontarget': {' '.join(fields)[:200]}\n"
                        "Write a blank inside a name as %20."
                    )
            one, other = (index.setdefault(name, len(index)) for name in (enroll, test))
            found.append((one, other, target))
        table = np.array(found, np.int64).reshape(-1, 3)
        trials = cls(list(index), table[:, 0], table[:, 1], table[:, 2].astype(bool))
        _require_both_kinds(trials.target, f"--trials {uri}")
        return trials

    def only(self, kept: npt.NDArray[np.bool_]) -> Trials:
        return Trials(self.names, self.enroll[kept], self.test[kept], self.target[kept])


@dataclass(frozen=True)
class TrialVectors:
    """The embeddings that trials name.

    Attributes:
        row: (names,), where in `vectors` each name's is; -1 where it has none.
        vectors: (found, width), of unit length.
        missing: names without an embedding, by why.
    """

    row: npt.NDArray[np.int64]
    vectors: Vectors
    missing: dict[str, list[str]]


@dataclass(frozen=True)
class Verification:
    """What scores of trials amount to; thresholds are scores, and a pair at or above one is accepted.

    Attributes:
        eer: equal error rate.
        min_dcf: p_target -> (least normalised detection cost, its threshold).
    """

    targets: int
    nontargets: int
    eer: float
    eer_threshold: float
    min_dcf: dict[float, tuple[float, float]] = field(default_factory=dict)


def find_vectors(names: Sequence[str], table: EmbeddingTable) -> TrialVectors:
    """Finds each name's clip: that which it names the most surely (see `names_of`); ties are not guessed."""
    wanted = {name: number for number, name in enumerate(names)}
    sureness = np.full(len(names), _UNKNOWN)
    row = np.full(len(names), -1)
    vectors: list[Vectors] = []
    ambiguous: set[int] = set()
    silent: set[int] = set()
    for batch in table.batches():
        at = np.cumsum(batch.present) - 1
        for i, clip_id in enumerate(batch.rows.column("clip_id").to_pylist()):
            for name, level in names_of(clip_id or "").items():
                if (number := wanted.get(name)) is None or level > sureness[number]:
                    continue
                if level == sureness[number]:
                    ambiguous.add(number)
                    continue
                sureness[number] = level
                ambiguous.discard(number)
                silent.discard(number)
                if batch.present[i]:
                    row[number] = len(vectors)
                    vectors.append(batch.vectors[at[i]])
                else:
                    silent.add(number)
    missing = {
        "unknown": [name for name, level in zip(names, sureness, strict=True) if level == _UNKNOWN],
        "ambiguous": [names[number] for number in sorted(ambiguous)],
        "without embedding": [names[number] for number in sorted(silent - ambiguous)],
    }
    row[[*ambiguous, *silent]] = -1
    return TrialVectors(
        row, np.array(vectors, np.float32), {why: found for why, found in missing.items() if found}
    )


def score_trials(trials: Trials, found: TrialVectors) -> tuple[Trials, Floats]:
    """The trials whose two names have an embedding, and their cosines.

    Raises:
        JobError: not both kinds of trials are left.
    """
    known = trials.only((found.row[trials.enroll] >= 0) & (found.row[trials.test] >= 0))
    _require_both_kinds(
        known.target,
        f"of {len(trials.target)} --trials {len(known.target)} name clips of the table "
        f"({describe_missing(found.missing)}): among them",
    )
    scores = np.zeros(len(known.target))
    for first in range(0, len(scores), _PAIRS):
        some = slice(first, first + _PAIRS)
        enroll, test = (found.vectors[found.row[side[some]]] for side in (known.enroll, known.test))
        scores[some] = np.einsum("ij,ij->i", enroll, test, dtype=np.float64)
    return known, scores


def verification(target: npt.NDArray[np.bool_], scores: Floats) -> Verification:
    """EER and minDCF of scored trials.

    At a threshold t, P_miss is the share of target trials that score below it, P_fa that of nontarget trials
    that do not. EER is where the two meet, on the straight line between the two neighbouring thresholds where
    they meet at none. The detection cost with C_miss = C_fa = 1, divided by that of the better constant
    decision, is

        (P_miss P_target + P_fa (1 - P_target)) / min(P_target, 1 - P_target)

    and minDCF its least value over all thresholds. Source: NIST 2016 Speaker Recognition Evaluation Plan,
    section 3 (costs and normalisation); Martin et al. 1997, "The DET curve in assessment of detection task
    performance".
    """
    from sklearn.metrics import roc_curve

    false_alarms, hits, thresholds = roc_curve(target, scores, drop_intermediate=False)
    misses = 1 - hits
    # From (P_miss, P_fa) = (1, 0) at a threshold above all scores to (0, 1).
    gap = misses - false_alarms
    after = int(np.argmax(gap <= 0))
    share = gap[after - 1] / (gap[after - 1] - gap[after])
    eer = misses[after - 1] + share * (misses[after] - misses[after - 1])
    ends = thresholds[[after if np.isinf(thresholds[after - 1]) else after - 1, after]]
    costs = {}
    for p_target in P_TARGETS:
        cost = (misses * p_target + false_alarms * (1 - p_target)) / min(p_target, 1 - p_target)
        best = int(np.argmin(cost))
        costs[p_target] = float(cost[best]), float(thresholds[best])
    return Verification(
        targets=int(target.sum()),
        nontargets=int((~target).sum()),
        eer=float(eer),
        eer_threshold=float(ends[0] + share * (ends[1] - ends[0])),
        min_dcf=costs,
    )


def describe_missing(missing: dict[str, list[str]]) -> str:
    """Names that are not found, in words: how many, and the first."""
    return "; ".join(f"{len(names)} names {why}, {names[0]} first" for why, names in missing.items())


def score_lines(trials: Trials, scores: Iterable[float]) -> Iterator[str]:
    """Lines `enroll test score target|nontarget`."""
    for enroll, test, target, score in zip(trials.enroll, trials.test, trials.target, scores, strict=True):
        kind = "target" if target else "nontarget"
        yield f"{trials.names[enroll]} {trials.names[test]} {score:.6f} {kind}\n"


def _require_both_kinds(target: npt.NDArray[np.bool_], where: str) -> None:
    kinds = Counter(target.tolist())
    if not (kinds[True] and kinds[False]):
        raise JobError(
            f"{where} are {kinds[True]} target and {kinds[False]} nontarget trials; some of both are needed."
        )
