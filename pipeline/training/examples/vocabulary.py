"""The characters that a model learns to write: counted in the texts, numbered, kept in `vocab.json`."""

from __future__ import annotations

import json
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import strict_json
from pipeline.errors import JobError
from pipeline.storage import Storage, join, place_errors

if TYPE_CHECKING:
    from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer

DELIMITER, UNKNOWN, BLANK = "|", "[UNK]", "[PAD]"
# As others spell them.
_UNKNOWNS, _BLANKS = (UNKNOWN, "<unk>"), (BLANK, "<pad>")


def count_characters(texts: Iterable[str]) -> Counter[str]:
    """How often each character comes in normalised texts, blanks among them."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    return counts


@dataclass(frozen=True)
class Vocabulary:
    """Tokens with their ids, and the characters that were counted.

    Attributes:
        ids: of each token.
        counts: of each character of the training texts, those without a token too.
    """

    ids: Mapping[str, int]
    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def made(cls, counts: Mapping[str, int], min_char_count: int) -> Vocabulary:
        """A vocabulary of the characters that come at least so often, in the order of Unicode; `|` is the
        blank between words, `[UNK]` and `[PAD]` (the blank of CTC) come last.

        A rarer character has no token, and a clip with one is not learned from: without the character its
        label would not be what is said. Who wants such clips removes the character from the texts.

        Raises:
            JobError: no character comes so often.
        """
        often = {character for character, count in counts.items() if count >= min_char_count}
        spoken = sorted(often - {" ", DELIMITER})
        if not spoken:
            raise JobError(
                f"no character comes {min_char_count} times or more in the training texts "
                f"({sum(counts.values())} characters in all): see --text-column, or lower --min-char-count."
            )
        tokens = [DELIMITER, *spoken, UNKNOWN, BLANK]
        return cls({token: index for index, token in enumerate(tokens)}, counts)

    @classmethod
    def read(cls, uri: str, storage: Storage, counts: Mapping[str, int]) -> Vocabulary:
        """A `vocab.json` that is given.

        Raises:
            JobError: no such file, or no vocabulary.
        """
        with place_errors("--vocab", uri):
            data = storage.read_bytes(uri)
        try:
            return cls(strict_json.loads(data, dict[str, int]), counts)
        except ValueError as problem:
            raise JobError(
                f'--vocab {uri} is no JSON object of tokens and ids such as {{"a": 0}}.'
            ) from problem

    def id_of(self, character: str) -> int | None:
        """The id of a character of a text; None where it has no token."""
        if character == DELIMITER:
            return None  # it would read as a blank
        spelled = DELIMITER if character == " " and DELIMITER in self.ids else character
        return self.ids.get(spelled)

    @property
    def left_out(self) -> dict[str, int]:
        """Characters of the training texts that have no token, the most frequent first."""
        return {character: count for character, count in self._by_count if self.id_of(character) is None}

    @property
    def _by_count(self) -> list[tuple[str, int]]:
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))

    def characters(self) -> list[dict[str, Any]]:
        """Every character that was counted, the most frequent first, for people to look at."""
        return [
            {
                "character": character,
                "code": f"U+{ord(character):04X}",
                "name": unicodedata.name(character, ""),
                "count": count,
                "id": self.id_of(character),
            }
            for character, count in self._by_count
        ]

    def save(self, folder: str, storage: Storage) -> None:
        """Writes `vocab.json`, and what was counted into `characters.json`."""
        for name, content in (("vocab.json", self.ids), ("characters.json", self.characters())):
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            storage.write_bytes(join(folder, name), text.encode())

    def tokenizer(self) -> Wav2Vec2CTCTokenizer:
        """The tokenizer of these tokens, with nothing added to them.

        Raises:
            JobError: ids of no vocabulary, or no token for the blank of CTC.
        """
        from w2vbert.fields import ConfigError
        from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer

        blank = next((token for token in _BLANKS if token in self.ids), None)
        unknown = next((token for token in _UNKNOWNS if token in self.ids), None)
        if blank is None or unknown is None or sorted(self.ids.values()) != list(range(len(self.ids))):
            raise JobError(
                "the vocabulary must number its tokens 0, 1, 2, ... and have [PAD], the blank of CTC, and "
                f"[UNK] among them (or <pad> and <unk>); it has {len(self.ids)} tokens."
            )
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "vocab.json")
            file.write_text(json.dumps(self.ids), encoding="utf-8")
            try:
                return Wav2Vec2CTCTokenizer(
                    vocab_file=file,
                    unk_token=unknown,
                    pad_token=blank,
                    word_delimiter_token=DELIMITER if DELIMITER in self.ids else None,
                    bos_token=None,
                    eos_token=None,
                )
            except ConfigError as problem:
                raise JobError(f"the vocabulary cannot be used: {problem}.") from problem
