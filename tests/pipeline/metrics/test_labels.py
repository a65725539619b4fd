"""Accuracy and macro F1 by hand, and against scikit-learn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from pipeline.metrics.labels import LabelErrors


def errors_of(pairs: list[tuple[str, str | None]]) -> LabelErrors:
    errors = LabelErrors()
    for reference, label in pairs:
        errors.add(reference, label)
    return errors


def test_by_hand() -> None:
    errors = errors_of([("a", "a"), ("a", "a"), ("a", "b"), ("b", "b"), ("c", None)])
    assert errors.accuracy == pytest.approx(3 / 5)
    # a: 2·2/(3+2), b: 2·1/(1+2), c: never right.
    assert errors.macro_f1 == pytest.approx((4 / 5 + 2 / 3 + 0) / 3)


def test_nothing_to_score() -> None:
    assert (LabelErrors().accuracy, LabelErrors().macro_f1) == (None, None)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1))
def test_as_the_peer(pairs: list[tuple[str, str | None]]) -> None:
    references, labels = zip(*pairs, strict=True)
    errors = errors_of(pairs)
    assert errors.accuracy == pytest.approx(accuracy_score(references, labels))
    assert errors.macro_f1 == pytest.approx(f1_score(references, labels, average="macro", zero_division=0))
