"""Accuracy and macro-averaged F1 of labels: one of each clip."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class LabelErrors:
    """Counts of (reference, label); a clip without a label has None there, which is never right."""

    pairs: Counter[tuple[str, str | None]] = field(default_factory=Counter)

    def add(self, reference: str, label: str | None) -> None:
        self.pairs[reference, label] += 1

    @property
    def accuracy(self) -> float | None:
        """Share of clips with the right label; None without clips."""
        total = self.pairs.total()
        right = sum(count for (reference, label), count in self.pairs.items() if reference == label)
        return right / total if total else None

    @property
    def macro_f1(self) -> float | None:
        """The mean of F1 = 2 right / (2 right + wrong + missing) over all classes that clips have or are
        given; None without clips.

        Source: Sokolova and Lapalme 2009, "A systematic analysis of performance measures for classification
        tasks" (macro-averaging), as the mean of the classes' F1.
        """
        told: Counter[str | None] = Counter()  # twice the right ones, and those that are not
        right: Counter[str | None] = Counter()
        for (reference, label), count in self.pairs.items():
            told[reference] += count
            told[label] += count
            if reference == label:
                right[reference] += count
        del told[None]
        scores = [2 * right[name] / count for name, count in told.items()]
        return sum(scores) / len(scores) if scores else None
