"""Trial lists and their measures: against counting errors at every threshold."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import JobError
from pipeline.speakers.embeddings import EmbeddingTable
from pipeline.speakers.trials import Trials, find_vectors, score_lines, score_trials, verification
from pipeline.storage import Storage, StorageOptions

STORAGE = Storage(StorageOptions())
scored = st.lists(st.integers(-10, 10).map(lambda value: value / 10), min_size=1, max_size=30)


def error_rates(targets: list[float], nontargets: list[float]) -> list[tuple[float, float, float]]:
    """(threshold, P_miss, P_fa) from a threshold above all scores to the lowest score."""
    thresholds = [np.inf, *sorted({*targets, *nontargets}, reverse=True)]
    return [
        (
            threshold,
            sum(score < threshold for score in targets) / len(targets),
            sum(score >= threshold for score in nontargets) / len(nontargets),
        )
        for threshold in thresholds
    ]


def equal_error_rate(rates: list[tuple[float, float, float]]) -> float:
    """Where the line through the operating points crosses P_miss = P_fa."""
    for (_, miss, alarm), (_, next_miss, next_alarm) in pairwise(rates):
        if next_miss <= next_alarm:
            steps = np.linspace(0, 1, 100_001)
            misses, alarms = miss + steps * (next_miss - miss), alarm + steps * (next_alarm - alarm)
            return float(misses[np.argmin(np.abs(misses - alarms))])
    raise AssertionError("the last operating point accepts everything")


@settings(max_examples=100, deadline=None)
@given(scored, scored)
def test_measures_equal_counting(targets: list[float], nontargets: list[float]) -> None:
    target = np.array([True] * len(targets) + [False] * len(nontargets))
    found = verification(target, np.array(targets + nontargets))
    rates = error_rates(targets, nontargets)
    assert (found.targets, found.nontargets) == (len(targets), len(nontargets))
    assert found.eer == pytest.approx(equal_error_rate(rates), abs=2e-5)
    assert np.isfinite(found.eer_threshold)
    for p_target, (cost, threshold) in found.min_dcf.items():
        costs = {at: (miss * p_target + alarm * (1 - p_target)) / p_target for at, miss, alarm in rates}
        assert cost == pytest.approx(min(costs.values()))
        assert costs[threshold] == pytest.approx(cost)
        assert cost <= 1 + 1e-12
    assert list(found.min_dcf) == [0.01, 0.05]


def test_scores_that_separate_have_no_error_at_their_threshold() -> None:
    found = verification(np.array([True, True, False, False]), np.array([0.9, 0.6, 0.5, -0.2]))
    assert (found.eer, found.eer_threshold) == (0, 0.6)
    assert found.min_dcf == {0.01: (0, 0.6), 0.05: (0, 0.6)}


def test_an_equal_error_rate_between_two_thresholds() -> None:
    """At 0.5 one of three is missed and none accepted, at 0.4 one of two is accepted and one still missed."""
    found = verification(np.array([1, 1, 1, 0, 0], bool), np.array([0.9, 0.5, 0.1, 0.4, 0.0]))
    assert found.eer == pytest.approx(1 / 3)
    assert found.eer_threshold == pytest.approx(0.5 - 0.1 * (1 / 3) / (1 / 2))


def test_chance_is_a_half() -> None:
    random = np.random.default_rng(0)
    found = verification(random.random(20_000) < 0.3, random.standard_normal(20_000))
    assert found.eer == pytest.approx(0.5, abs=0.02)
    assert found.min_dcf[0.01][0] == pytest.approx(1, abs=0.02)


def trials(tmp_path: Path, text: str) -> Trials:
    (tmp_path / "trials.txt").write_text(text)
    return Trials.read(str(tmp_path / "trials.txt"), STORAGE)


def test_both_formats(tmp_path: Path) -> None:
    found = trials(tmp_path, "1 a/1.wav b/2.wav\n\n0  a/1.wav\tc\nb/2.wav c target\nc 1 nontarget\n0 1 0\n")
    pairs = [(found.names[i], found.names[j]) for i, j in zip(found.enroll, found.test, strict=True)]
    assert pairs == [("a/1.wav", "b/2.wav"), ("a/1.wav", "c"), ("b/2.wav", "c"), ("c", "1"), ("1", "0")]
    assert found.target.tolist() == [True, False, True, False, False]


@pytest.mark.parametrize("line", ["2 a b", "a b", "1 a b c", "a b same", "1 a"])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(
        JobError, match=r"trials\.txt, line 3: neither '0\|1 enroll test' nor 'enroll test target"
    ):
        trials(tmp_path, f"1 a b\n\n{line}\n0 a b\n")


def test_lists_that_cannot_serve(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="does not exist"):
        Trials.read(str(tmp_path / "absent.txt"), STORAGE)
    with pytest.raises(JobError, match="are 2 target and 0 nontarget trials"):
        trials(tmp_path, "1 a b\n1 b c\n")
    with pytest.raises(JobError, match="are 0 target and 0 nontarget trials"):
        trials(tmp_path, "\n")


@pytest.fixture
def table(tmp_path: Path) -> EmbeddingTable:
    angles = {
        "x/a.wav#a": 0,
        "y/a.wav#a": 120,  # 'a' is two clips
        "s.tar#2024/b": 60,
        "t.parquet#0": 45,
        "b#7": 30,  # a shard called b is a surer b than a key without its folder
        "silent.wav#silent": None,
    }
    rows = [
        None if angle is None else [np.cos(np.radians(angle)), np.sin(np.radians(angle))]
        for angle in angles.values()
    ]
    columns = {"clip_id": list(angles), "embedding": pa.array(rows, pa.list_(pa.float32(), 2))}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    return EmbeddingTable.open(str(tmp_path / "t.parquet"), STORAGE)


def test_cosines_of_clips_by_any_of_their_names(tmp_path: Path, table: EmbeddingTable) -> None:
    found = trials(
        tmp_path,
        "1 x/a.wav s.tar#2024/b\n"
        "0 x/a.wav#a y/a.wav\n"
        "0 2024/b t.parquet#0\n"
        "1 x/a.wav b\n"
        "1 x/a.wav a\n"
        "0 x/a.wav silent\n"
        "0 nobody nowhere\n",
    )
    voices = find_vectors(found.names, table)
    assert voices.missing == {
        "unknown": ["nobody", "nowhere"],
        "ambiguous": ["a"],
        "without embedding": ["silent"],
    }
    known, scores = score_trials(found, voices)
    np.testing.assert_allclose(scores, np.cos(np.radians([60, 120, 15, 30])), atol=1e-6)
    assert list(score_lines(known, scores)) == [
        "x/a.wav s.tar#2024/b 0.500000 target\n",
        "x/a.wav#a y/a.wav -0.500000 nontarget\n",
        "2024/b t.parquet#0 0.965926 nontarget\n",
        "x/a.wav b 0.866025 target\n",
    ]


def test_no_trial_is_left(tmp_path: Path, table: EmbeddingTable) -> None:
    found = trials(tmp_path, "1 nobody a\n0 nobody x/a.wav\n")
    message = r"of 2 --trials 0 name clips of the table \(1 names unknown, nobody first; 1 names ambiguous, a"
    with pytest.raises(JobError, match=message):
        score_trials(found, find_vectors(found.names, table))
