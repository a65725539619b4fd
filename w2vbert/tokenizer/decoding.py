"""Ids to text: the half of the tokenizer that reads what CTC emits, with character and word offsets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from w2vbert.tokenizer.collapse import (
    CollapsedPath,
    Offsets,
    TokenIds,
    Wav2Vec2CTCTokenizerOutput,
    as_ids,
    cleaned_up,
)
from w2vbert.tokenizer.tokens import TokenTable

_IGNORED_LABEL = -100  # what PyTorch's losses skip


class PathDecoder(TokenTable):
    """Reads ids as text, from frames or from labels."""

    def decode(
        self,
        token_ids: TokenIds,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        output_char_offsets: bool = False,
        output_word_offsets: bool = False,
        group_tokens: bool = True,
        spaces_between_special_tokens: bool = False,
    ) -> str | Wav2Vec2CTCTokenizerOutput:
        """The text of one sequence of ids, by default the best ids of CTC logits, frame by frame.

        Args:
            token_ids: (frames,).
            skip_special_tokens: drop special tokens, but never the word delimiter. As published this comes
                first and the blank is one of them: doubled letters merge, and offsets count what is left. So
                decode frames without it.
            clean_up_tokenization_spaces: no space before punctuation and English contractions.
            output_char_offsets, output_word_offsets: with them a `Wav2Vec2CTCTokenizerOutput` is returned.
            group_tokens: merge equal neighbours. False for ids that are not frames; see `decode_labels`.
            spaces_between_special_tokens: put a space between all characters.

        Raises:
            TypeError: several sequences (see `batch_decode`), or what are no ids, such as logits.
            ValueError: an id that is not in the vocabulary where there is no `unk_token`.
        """
        path = self.collapse_path(token_ids, skip_special_tokens, group_tokens)
        separator = " " if spaces_between_special_tokens else ""
        text = self.text_of(path, separator, clean_up_tokenization_spaces)
        if not (output_char_offsets or output_word_offsets):
            return text
        return Wav2Vec2CTCTokenizerOutput(
            text=text,
            char_offsets=path.char_offsets() if output_char_offsets else None,
            word_offsets=path.word_offsets() if output_word_offsets else None,
        )

    def batch_decode(
        self,
        sequences: Iterable[TokenIds],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        output_char_offsets: bool = False,
        output_word_offsets: bool = False,
        **options: Any,
    ) -> list[str] | Wav2Vec2CTCTokenizerOutput:
        """`decode` of several sequences; offsets make it one output whose fields are lists.

        Raises:
            TypeError, ValueError: as `decode`.
        """
        options |= {
            "skip_special_tokens": skip_special_tokens,
            "clean_up_tokenization_spaces": clean_up_tokenization_spaces,
            "output_char_offsets": output_char_offsets,
            "output_word_offsets": output_word_offsets,
        }
        decoded = [self.decode(ids, **options) for ids in sequences]
        if not (output_char_offsets or output_word_offsets):
            return [str(one) for one in decoded]
        outputs = [one for one in decoded if isinstance(one, Wav2Vec2CTCTokenizerOutput)]
        return Wav2Vec2CTCTokenizerOutput(
            text=[str(one.text) for one in outputs],
            char_offsets=[one.char_offsets for one in outputs] if output_char_offsets else None,
            word_offsets=[one.word_offsets for one in outputs] if output_word_offsets else None,
        )

    def decode_labels(self, labels: Iterable[TokenIds]) -> list[str]:
        """The texts of reference labels, (batch, length): what was not spread over frames is not collapsed.

        `decode` would make "helo" of "hello". Padding and -100 are dropped.
        """
        texts = []
        for row in labels:
            ids = as_ids(row)
            texts.append(str(self.decode(ids[ids != _IGNORED_LABEL], group_tokens=False)))
        return texts

    def collapse_path(
        self, token_ids: TokenIds, skip_special_tokens: bool = False, group_tokens: bool = True
    ) -> CollapsedPath:
        """What a sequence of ids emits and in which frames; `decode` puts it into words."""
        return self._collapse(as_ids(token_ids), skip_special_tokens, group_tokens)

    def text_of(self, path: CollapsedPath, separator: str = "", clean_up: bool | None = None) -> str:
        """The text of a collapsed path, cleaned up as the tokenizer is set unless told."""
        text = path.text(separator)
        text = text.lower() if self.do_lower_case else text
        clean_up = self.clean_up_tokenization_spaces if clean_up is None else clean_up
        return cleaned_up(text) if clean_up else text

    def clean_up_tokenization(self, text: str) -> str:
        """No space before punctuation and English contractions."""
        return cleaned_up(text)

    @staticmethod
    def _get_word_offsets(offsets: Offsets, word_delimiter_char: str = " ") -> Offsets:
        """Word offsets from character offsets: the published pipeline asks for them by this name."""
        symbols, starts, ends = (
            [offset[name] for offset in offsets] for name in ("char", "start_offset", "end_offset")
        )
        return CollapsedPath(symbols, starts, ends, word_delimiter_char).word_offsets()

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or the tokens of several; the word delimiter is never skipped."""
        if isinstance(ids, int):
            return self.vocabulary.token(ids, self.unk_token)
        tokens = [self.vocabulary.token(index, self.unk_token) for index in as_ids(ids).tolist()]
        skipped = set(self.all_special_tokens) - {self.word_delimiter_token} if skip_special_tokens else set()
        return [token for token in tokens if token not in skipped]

    def convert_tokens_to_string(
        self,
        tokens: Sequence[str],
        group_tokens: bool = True,
        spaces_between_special_tokens: bool = False,
        output_char_offsets: bool = False,
        output_word_offsets: bool = False,
    ) -> dict[str, Any]:
        """`decode` for tokens: {"text", "char_offsets", "word_offsets"}."""
        places = {token: place for place, token in enumerate(dict.fromkeys(tokens))}
        ids = np.array([places[token] for token in tokens], np.int64)
        path = self._make_collapser([*places, None])(ids, group=group_tokens)
        return {
            "text": self.text_of(path, " " if spaces_between_special_tokens else "", clean_up=False),
            "char_offsets": path.char_offsets() if output_char_offsets else None,
            "word_offsets": path.word_offsets() if output_word_offsets else None,
        }
