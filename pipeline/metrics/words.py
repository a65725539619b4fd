"""Word and character error rates against the reference text that came with the clips, counted by jiwer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jiwer


@dataclass
class Edits:
    """Edit counts of hypotheses against references, in words or characters."""

    right: int = 0
    wrong: int = 0
    missing: int = 0
    inserted: int = 0

    def add(self, other: Edits) -> None:
        self.right += other.right
        self.wrong += other.wrong
        self.missing += other.missing
        self.inserted += other.inserted

    @property
    def rate(self) -> float | None:
        """Errors per reference token: WER or CER; None without a reference."""
        length = self.right + self.wrong + self.missing
        return (self.wrong + self.missing + self.inserted) / length if length else None


@dataclass
class WordErrors:
    """Transcripts (`text`) against `ref_text`, where a clip has one."""

    scored: int = 0
    words: Edits = field(default_factory=Edits)
    characters: Edits = field(default_factory=Edits)

    columns = ("text", "ref_text")

    def add_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        references, hypotheses = [], []
        for row in rows:
            reference = row.get("ref_text")
            if row.get("text") is not None and isinstance(reference, str) and reference.strip():
                references.append(reference.strip())
                hypotheses.append(row["text"])
        if references:
            import jiwer

            self.scored += len(references)
            self.words.add(_edits(jiwer.process_words(references, hypotheses)))
            self.characters.add(_edits(jiwer.process_characters(references, hypotheses)))

    def add(self, other: WordErrors) -> None:
        self.scored += other.scored
        self.words.add(other.words)
        self.characters.add(other.characters)

    def facts(self) -> dict[str, Any]:
        return {
            "scored_clips": self.scored,
            "wer": self.words.rate,
            "cer": self.characters.rate,
            "word_edits": asdict(self.words),
        }

    def lines(self) -> list[tuple[str, str]]:
        if self.words.rate is None or self.characters.rate is None:
            return []
        return [
            ("WER", f"{self.words.rate:.2%} over {self.scored} clips with a reference"),
            ("CER", f"{self.characters.rate:.2%}"),
        ]


def _edits(measured: jiwer.WordOutput | jiwer.CharacterOutput) -> Edits:
    return Edits(measured.hits, measured.substitutions, measured.deletions, measured.insertions)
