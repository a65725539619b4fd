"""What of a written text is learned: one spelling for what sounds alike."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

from pipeline.errors import JobError


@dataclass(frozen=True)
class TextSettings:
    """How texts are normalised.

    Attributes:
        lower_case: lower the case.
        remove_characters: characters to take out, such as ",.?!"; between brackets a character list of
            regular expressions, such as "[^a-z' ]".

    Raises:
        JobError: a list that is none.
    """

    lower_case: bool = False
    remove_characters: str = ""

    def __post_init__(self) -> None:
        _ = self.removed

    @cached_property
    def removed(self) -> re.Pattern[str] | None:
        """What is taken out; None: nothing."""
        given = self.remove_characters
        if not given:
            return None
        is_list = len(given) > 2 and given[0] == "[" and given[-1] == "]"
        pattern = given if is_list else f"[{re.escape(given)}]"
        try:
            return re.compile(pattern)
        except re.error as problem:
            raise JobError(
                f"--remove-characters {given!r} is no list of characters ({problem}): write the characters "
                "alone, such as ',.?!', or a regular expression's list, such as '[^a-z ]'."
            ) from None


def normalise(text: str, settings: TextSettings) -> str:
    """A text as labels spell it.

    Composed (Unicode NFC), in lower case and without removed characters if so set, each run of white space
    one blank, none at the ends. NFC, not NFKC: it changes no character that a reader can tell from another,
    so transcripts come back as people write; "½" or "…" are for `remove_characters`, or cost a clip.
    """
    text = unicodedata.normalize("NFC", text)
    if settings.lower_case:
        text = unicodedata.normalize("NFC", text.lower())
    if settings.removed is not None:
        text = unicodedata.normalize("NFC", settings.removed.sub("", text))
    return " ".join(text.split())
