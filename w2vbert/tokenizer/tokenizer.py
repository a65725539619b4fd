"""Wav2Vec2CTCTokenizer: text to labels, and one id per frame to text with character and word offsets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from w2vbert.features.batch import BatchEncoding, TensorType, to_tensor
from w2vbert.features.padding import NO_LIMIT, Padding, columns, pad_to, padded_length, truncated_length
from w2vbert.pretrained.hub import read_json
from w2vbert.tokenizer.collapse import (
    CollapsedPath,
    PathCollapser,
    TokenIds,
    Wav2Vec2CTCTokenizerOutput,
    as_ids,
    cleaned_up,
)
from w2vbert.tokenizer.files import VOCAB_FILE, read_arguments, write_arguments, write_json
from w2vbert.tokenizer.vocabulary import AddedToken, TokenSplitter, Vocabulary

IGNORED_LABEL = -100  # what PyTorch's losses skip
_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Wav2Vec2CTCTokenizer:
    """A tokenizer over characters, and longer units, whose padding token is the CTC blank.

    Args:
        vocab_file: JSON with the id of each token, or with such a vocabulary for each of several languages.
        bos_token, eos_token, unk_token, pad_token: special tokens, added if the vocabulary lacks them; None:
            there is none. `pad_token` is the CTC blank.
        word_delimiter_token: stands for the space between words.
        replace_word_delimiter_char: what it becomes in decoded text.
        do_lower_case: the vocabulary is upper case, the text lower case.
        target_lang: which vocabulary of several.
        extra_special_tokens: more special tokens.
        added_tokens_decoder: added tokens with their ids, as saved.
        model_max_length: where truncation cuts when not told.
        padding_side, truncation_side: "right" or "left".
        clean_up_tokenization_spaces: the default of `decode`.
        extra: further `..._token` arguments name special tokens; anything else is kept for `save_pretrained`.

    Attributes:
        bos_token, bos_token_id and so on for every special token: None where there is none.

    Raises:
        ValueError: a vocabulary and a `target_lang` that do not go together, or an impossible value.
    """

    model_input_names = ("input_ids", "attention_mask")

    bos_token: str | None
    eos_token: str | None
    unk_token: str | None
    pad_token: str | None
    word_delimiter_token: str | None
    bos_token_id: int | None
    eos_token_id: int | None
    unk_token_id: int | None
    pad_token_id: int | None
    word_delimiter_token_id: int | None

    def __init__(
        self,
        vocab_file: str | os.PathLike[str],
        bos_token: str | AddedToken | None = "<s>",
        eos_token: str | AddedToken | None = "</s>",
        unk_token: str | AddedToken | None = "<unk>",
        pad_token: str | AddedToken | None = "<pad>",
        word_delimiter_token: str | AddedToken | None = "|",
        replace_word_delimiter_char: str = " ",
        do_lower_case: bool = False,
        target_lang: str | None = None,
        *,
        extra_special_tokens: Iterable[str | AddedToken] | None = None,
        added_tokens_decoder: Mapping[int, AddedToken] | None = None,
        model_max_length: int | None = None,
        padding_side: Literal["right", "left"] = "right",
        truncation_side: Literal["right", "left"] = "right",
        clean_up_tokenization_spaces: bool | None = False,
        **extra: Any,
    ) -> None:
        for name, side in (("padding_side", padding_side), ("truncation_side", truncation_side)):
            if side not in ("right", "left"):
                raise ValueError(f"{name} must be 'right' or 'left', not {side!r}")
        further = {name: extra.pop(name) for name in list(extra) if name.endswith("_token")}
        named = {
            "bos_token": bos_token,
            "eos_token": eos_token,
            "unk_token": unk_token,
            "pad_token": pad_token,
            **further,
            "word_delimiter_token": word_delimiter_token,
        }
        order = [*_NAMED_TOKENS, *(name for name in named if name not in _NAMED_TOKENS)]
        special = {name: named[name] for name in order if named.get(name) is not None}
        more = list(extra_special_tokens or ())
        self.special_tokens_map = {name: str(token) for name, token in special.items()}
        self.extra_special_tokens = [str(token) for token in more]
        self.replace_word_delimiter_char = replace_word_delimiter_char
        self.do_lower_case = do_lower_case
        self.model_max_length = NO_LIMIT if model_max_length is None else model_max_length
        self.padding_side = padding_side
        self.truncation_side = truncation_side
        self.clean_up_tokenization_spaces = bool(clean_up_tokenization_spaces)
        self.extra = extra

        self.vocabulary = Vocabulary(read_json(vocab_file), target_lang, source=str(vocab_file))
        self.vocabulary.restore(added_tokens_decoder or {})
        saved = {token.content for token in self.vocabulary.added.values()}
        self.vocabulary.add(
            (token for token in (*special.values(), *more) if str(token) not in saved), special=True
        )
        self._keep_long_tokens_whole()

    # The vocabulary

    @property
    def target_lang(self) -> str | None:
        return self.vocabulary.target_lang

    @property
    def vocab_size(self) -> int:
        """How many ids the vocabulary has without the added tokens."""
        return len(self.vocabulary.decoder)

    def __len__(self) -> int:
        """How many tokens there are with the added ones."""
        return len(self._ids)

    def get_vocab(self) -> dict[str, int]:
        """The id of every token."""
        return dict(self._ids)

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The tokens that are found in text as a whole, by id."""
        return dict(sorted(self.vocabulary.added.items()))

    @property
    def all_special_tokens(self) -> list[str]:
        return list(dict.fromkeys([*self.special_tokens_map.values(), *self.extra_special_tokens]))

    @property
    def all_special_ids(self) -> list[int]:
        return [self._id(token) for token in self.all_special_tokens]

    def add_tokens(
        self, new_tokens: str | AddedToken | Iterable[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Add tokens behind the vocabulary; those in it already are from now on found as a whole.

        Returns:
            How many are new.
        """
        if isinstance(new_tokens, (str, AddedToken)):
            new_tokens = [new_tokens]
        new_tokens = list(new_tokens)
        if special_tokens:
            self.extra_special_tokens += [str(token) for token in new_tokens]
        new = self.vocabulary.add(new_tokens, special=special_tokens)
        self._refresh()
        return new

    def set_target_lang(self, target_lang: str) -> None:
        """Change to the vocabulary of another language.

        Raises:
            ValueError: no such language, or only one vocabulary.
        """
        self.vocabulary.set_target_lang(target_lang)
        self._keep_long_tokens_whole()

    def _keep_long_tokens_whole(self) -> None:
        long_tokens = (token for token in self.vocabulary.encoder if len(token) > 1)
        self.vocabulary.add(
            (AddedToken(token, lstrip=True, rstrip=True) for token in long_tokens), special=False
        )
        self._refresh()

    def _refresh(self) -> None:
        """Compute what follows from the vocabulary and the special tokens."""
        self._ids = self.vocabulary.ids()
        self._split = TokenSplitter(self.vocabulary.added.values())
        for name in (*_NAMED_TOKENS, *self.special_tokens_map, "word_delimiter_token"):
            token = self.special_tokens_map.get(name)
            setattr(self, name, token)
            setattr(self, f"{name}_id", self._ids.get(token) if token is not None else None)

        places = range(max([*self.vocabulary.decoder, *self.vocabulary.added], default=-1) + 2)
        tokens = [self.vocabulary.token(index, self.unk_token) for index in places]
        self._collapse = self._make_collapser(tokens)

    def _make_collapser(self, tokens: Sequence[str | None]) -> PathCollapser:
        return PathCollapser(
            tokens,
            blank=self.pad_token,
            delimiter=self.word_delimiter_token,
            replacement=self.replace_word_delimiter_char,
            special=self.all_special_tokens,
        )

    # Text to ids

    def __call__(
        self,
        text: str | Sequence[str],
        add_special_tokens: bool = True,
        padding: Padding = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: TensorType | None = None,
        return_attention_mask: bool | None = None,
    ) -> BatchEncoding:
        """Ids of a text or of a batch of texts.

        Args:
            text: one text or several.
            add_special_tokens: accepted as published; a CTC tokenizer adds none.
            padding: False, True or "longest", "max_length".
            truncation: cut at `max_length`, by default where that is given and nothing is padded.
            max_length, pad_to_multiple_of: in tokens.
            return_tensors: "pt" or "np" for arrays (batch, length); lists when not given.

        Returns:
            `input_ids` and `attention_mask`.

        Raises:
            ValueError: a character that is not in the vocabulary where there is no `unk_token`.
        """
        cut_at = self.model_max_length if max_length is None else max_length
        if truncation is None:
            truncation = max_length is not None and padding is False
        limit = truncated_length(truncation, cut_at, padding, pad_to_multiple_of)
        ids = [self._truncate(self.encode(one), limit) for one in ([text] if isinstance(text, str) else text)]
        batch: Mapping[str, Any] = {"input_ids": ids}
        if padding == "max_length" and max_length is None:
            max_length = self.model_max_length
            padding = "max_length" if max_length < NO_LIMIT else False
        if ids:
            batch = self.pad(
                batch,
                padding=padding,
                max_length=max_length,
                pad_to_multiple_of=pad_to_multiple_of,
                padding_side=padding_side,
                return_attention_mask=return_attention_mask,
            )
        if isinstance(text, str) and return_tensors is None:
            batch = {key: value[0] for key, value in batch.items()}
        return BatchEncoding(batch).convert_to_tensors(return_tensors)

    def encode(self, text: str) -> list[int]:
        """Ids of one text."""
        return [self._id(token) for token in self.tokenize(text)]

    def tokenize(self, text: str) -> list[str]:
        """Tokens of one text: those that are kept whole, and between them every character by itself.

        Where whole tokens overlap, the one that begins first counts, and of several the longest. White space
        next to a longer token of the vocabulary goes with it, as published.
        """
        tokens: list[str] = []
        special = set(self.all_special_tokens)
        for piece in self._split(text):
            if piece in self._split.tokens or piece in special:
                tokens.append(piece)
            else:
                characters = piece.upper() if self.do_lower_case else piece
                tokens += (self._delimited(character) for character in characters)
        return tokens

    def _delimited(self, character: str) -> str:
        return self.word_delimiter_token or character if character == " " else character

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The id of a token (str), or the ids of a list of tokens; for unknown ones that of `unk_token`."""
        return self._id(tokens) if isinstance(tokens, str) else [self._id(token) for token in tokens]

    def _id(self, token: str) -> int:
        index = self._ids.get(token, self.unk_token_id)
        if index is None:
            raise ValueError(f"{token!r} is not in the vocabulary, and there is no unk_token")
        return index

    def _truncate(self, ids: list[int], limit: int | None) -> list[int]:
        if limit is None or len(ids) <= limit:
            return ids
        return ids[:limit] if self.truncation_side == "right" else ids[len(ids) - limit :]

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: Padding = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: TensorType | None = None,
    ) -> BatchEncoding:
        """Bring ids of several texts to one length.

        Args:
            encoded_inputs: {"input_ids": [[...], ...]}, with "attention_mask" or without, or a list with a
                mapping for each text, as a data loader has it. Other entries pass through.
            padding, max_length, pad_to_multiple_of, padding_side: as in `__call__`.
            return_tensors: as in `__call__`; tensors in, tensors out.
        """
        encoded_inputs = columns(encoded_inputs, "input_ids")
        rows = list(encoded_inputs["input_ids"])
        if return_tensors is None and isinstance(rows[0], (torch.Tensor, np.ndarray)):
            return_tensors = "pt" if isinstance(rows[0], torch.Tensor) else "np"
        ids = [np.asarray(row, np.int64) for row in rows]
        masks = [np.asarray(mask, np.int64) for mask in encoded_inputs.get("attention_mask", ())]
        masks = masks or [np.ones(len(row), np.int64) for row in ids]

        length = padded_length([len(row) for row in ids], padding, max_length, pad_to_multiple_of)
        if length is not None and self.pad_token_id is None:
            raise ValueError("there is no pad_token to pad with")
        side = padding_side or self.padding_side
        batch = BatchEncoding(encoded_inputs)
        batch["input_ids"] = [pad_to(row, length, self.pad_token_id or 0, side).tolist() for row in ids]
        if return_attention_mask is None or return_attention_mask:
            batch["attention_mask"] = [pad_to(mask, length, 0, side).tolist() for mask in masks]
        else:
            batch.pop("attention_mask", None)
        for key in self.model_input_names:
            if return_tensors is not None and key in batch:
                batch[key] = to_tensor(batch[key], return_tensors, name=key)
        return batch

    # Ids to text

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
            ValueError: an id that is not in the vocabulary where there is no `unk_token`.
        """
        path = self.collapse_path(token_ids, skip_special_tokens, group_tokens)
        separator = " " if spaces_between_special_tokens else ""
        text = self.text_of(path, separator, clean_up_tokenization_spaces)
        if not (output_char_offsets or output_word_offsets):
            return text
        return Wav2Vec2CTCTokenizerOutput(
            text,
            path.char_offsets() if output_char_offsets else None,
            path.word_offsets() if output_word_offsets else None,
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
        """`decode` of several sequences; offsets make it one output whose fields are lists."""
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
            [str(one.text) for one in outputs],
            [one.char_offsets for one in outputs] if output_char_offsets else None,
            [one.word_offsets for one in outputs] if output_word_offsets else None,
        )

    def decode_labels(self, labels: Iterable[TokenIds]) -> list[str]:
        """The texts of reference labels, (batch, length): what was not spread over frames is not collapsed.

        `decode` would make "helo" of "hello". Padding and -100 are dropped.
        """
        texts = []
        for row in labels:
            ids = as_ids(row)
            texts.append(str(self.decode(ids[ids != IGNORED_LABEL], group_tokens=False)))
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

    # Files

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str | None = None,
        **overrides: Any,
    ) -> Wav2Vec2CTCTokenizer:
        """The tokenizer of a checkpoint, as transformers 4 or 5 lays it out.

        Args:
            pretrained_model_name_or_path: a directory or a hub id; of its files only `vocab.json` must exist.
            overrides: arguments to set otherwise than the checkpoint does, `target_lang` above all.

        Raises:
            CheckpointNotFoundError: no such checkpoint, or no vocabulary in it.
            ValueError: as the class.
        """

        arguments = read_arguments(
            pretrained_model_name_or_path,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
            revision=revision,
        )
        return cls(**{**arguments, **overrides})

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> tuple[str, ...]:
        """Write the files that transformers 4 and 5 load; the paths are returned."""
        directory = Path(save_directory)
        directory.mkdir(parents=True, exist_ok=True)
        arguments = {
            **self.extra,
            # Said even where there is none: else a reader would take the default.
            **dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token", "word_delimiter_token")),
            **self.special_tokens_map,
            "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
            "do_lower_case": self.do_lower_case,
            "extra_special_tokens": self.extra_special_tokens,
            "model_max_length": self.model_max_length,
            "padding_side": self.padding_side,
            "replace_word_delimiter_char": self.replace_word_delimiter_char,
            "target_lang": self.target_lang,
            "tokenizer_class": type(self).__name__,
            "truncation_side": self.truncation_side,
        }
        written = write_arguments(directory, arguments, self.added_tokens_decoder, self.vocab_size)
        return (*written, *self.save_vocabulary(directory))

    def save_vocabulary(
        self, save_directory: str | os.PathLike[str], filename_prefix: str | None = None
    ) -> tuple[str]:
        """Write `vocab.json` alone, with the vocabularies of all languages."""
        name = f"{filename_prefix}-{VOCAB_FILE}" if filename_prefix else VOCAB_FILE
        return (write_json(Path(save_directory) / name, self.vocabulary.content),)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} tokens, {self.special_tokens_map})"
