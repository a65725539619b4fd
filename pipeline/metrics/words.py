"""Word and character error rates against the reference text that came with the clips, counted by jiwer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import jiwer

_KINDS = {"equal": "equal", "substitute": "wrong", "delete": "missing", "insert": "inserted"}


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


class Piece(NamedTuple):
    """Words, or characters, that reference and output have at one place.

    Attributes:
        kind: "equal", "wrong", "missing" (from the output) or "inserted".
    """

    kind: str
    reference: str
    output: str


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


def differences(reference: str, output: str) -> list[Piece]:
    """Aligns word by word; character by character where the reference is one word, or without blanks.

    Of alignments with equally few edits it is that of jiwer, which counts the errors too.
    """
    import jiwer

    if not reference.strip():
        return [Piece("inserted", "", word) for word in output.split()]
    whole = len(reference.split()) > 1
    process = jiwer.process_words if whole else jiwer.process_characters
    found = process(reference.strip(), output.strip())
    (said,), (heard,) = found.references, found.hypotheses
    return list(pieces(said, heard, found.alignments[0]))


def pieces(said: Sequence[str], heard: Sequence[str], alignment: Iterable[Any]) -> Iterator[Piece]:
    """The places of an alignment of jiwer, one after another."""
    for chunk in alignment:
        left = said[chunk.ref_start_idx : chunk.ref_end_idx]
        right = heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
        for place in range(max(len(left), len(right))):
            pair = left[place : place + 1], right[place : place + 1]
            yield Piece(_KINDS[chunk.type], *("".join(side) for side in pair))


def _edits(measured: jiwer.WordOutput | jiwer.CharacterOutput) -> Edits:
    return Edits(measured.hits, measured.substitutions, measured.deletions, measured.insertions)
