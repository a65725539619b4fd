"""Text to ids: the half of the tokenizer that makes labels."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from w2vbert.features.batch import BatchEncoding, TensorType
from w2vbert.features.padding import NO_LIMIT, Padding, columns, pad_to, padded_length
from w2vbert.fields import enumerate_names
from w2vbert.tokenizer.sequences import Encoding, described, pairs
from w2vbert.tokenizer.tokens import TokenTable

logger = logging.getLogger(__name__)


class TextEncoder(TokenTable):
    """Spells texts in ids, one by one or as a batch."""

    pad_token_type_id = 0

    def __call__(
        self,
        text: Any = None,
        text_pair: Any = None,
        text_target: Any = None,
        text_pair_target: Any = None,
        add_special_tokens: bool = True,
        padding: Padding = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: TensorType | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        *,
        split_special_tokens: bool | None = None,
        max_target_length: int | None = None,
    ) -> BatchEncoding:
        """Ids of a text or of a batch of texts.

        Args:
            text: one text or several; a text may be a list of ids too.
            text_pair: as many texts; each is put behind its `text`.
            text_target, text_pair_target: texts to be `labels` beside `text`; alone they are as `text`.
            add_special_tokens: a CTC tokenizer adds none; as published, without it `token_type_ids` do not
                tell pairs apart.
            padding: False, True or "longest", "max_length".
            truncation: cut at `max_length`, by default where that is given and nothing is padded. True or
                "longest_first"; "only_first" or "only_second" of a pair.
            max_length, pad_to_multiple_of: in tokens; `max_target_length`: of `text_target`.
            stride: so many tokens that stay are among the overflowing ones too.
            is_split_into_words: a text is a list of words, each spelled by itself, without delimiters.
            return_tensors: "pt" or "np" for arrays (batch, length); lists when not given.
            return_token_type_ids, return_special_tokens_mask, return_length: return these too.
            return_overflowing_tokens: return `overflowing_tokens` and `num_truncated_tokens`, in lists only.
            return_offsets_mapping: not known of this tokenizer, as published.
            verbose: False: say nothing of characters without a token.
            split_special_tokens: spell tokens that stand in the text, instead of keeping them whole.

        Returns:
            `input_ids` and `attention_mask`, and what was asked for.

        Raises:
            ValueError: a character that is not in the vocabulary where there is no `unk_token`, or arguments
                that do not go together.
        """
        if text is None and text_target is None:
            raise ValueError("give text or text_target")
        if return_offsets_mapping:
            raise NotImplementedError("this tokenizer does not know where in the text a token stands")
        overflow = return_overflowing_tokens and return_tensors is None
        wanted = {
            "pairs": add_special_tokens,
            "token_type_ids": return_token_type_ids,
            "special_tokens_mask": return_special_tokens_mask,
            "overflowing_tokens": overflow,
            "num_truncated_tokens": overflow,
            "length": return_length,
        }
        how = Encoding(
            words=is_split_into_words,
            split=split_special_tokens,
            verbose=verbose,
            truncation=truncation,
            padding=padding,
            stride=stride,
            multiple=pad_to_multiple_of,
            layout={"padding_side": padding_side, "return_attention_mask": return_attention_mask},
            wanted=frozenset(name for name, is_wanted in wanted.items() if is_wanted),
        )
        batch = BatchEncoding()
        if text is not None:
            batch = self._encode(text, text_pair, max_length, return_tensors, how)
        if text_target is not None:
            length = max_length if max_target_length is None else max_target_length
            target = self._encode(text_target, text_pair_target, length, return_tensors, how)
            if text is None:
                return target
            batch["labels"] = target["input_ids"]
        return batch

    def _encode(
        self, text: Any, pair: Any, max_length: int | None, return_tensors: TensorType | None, how: Encoding
    ) -> BatchEncoding:
        texts, batched = pairs(text, pair, how.words)
        rule = how.rule(max_length, self.model_max_length, self.truncation_side)
        rows = []
        for first, second in texts:
            behind = None if second is None else self._ids_of(second, how)
            rows.append(described(self._ids_of(first, how), behind, rule, how.wanted))
        batch: Mapping[str, Any] = {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
        if not any(batch.get("overflowing_tokens", ())):
            unused = ("overflowing_tokens", "num_truncated_tokens")
            batch = {name: values for name, values in batch.items() if name not in unused}
        padding = how.padding
        if padding == "max_length" and max_length is None:
            max_length = self.model_max_length
            padding = "max_length" if max_length < NO_LIMIT else False
        batch = self.pad(
            {"input_ids": [], **batch},
            padding=padding,
            max_length=max_length,
            pad_to_multiple_of=how.multiple,
            **how.layout,
        )
        if not batched and "length" in batch:
            batch = {**batch, "length": [len(batch["input_ids"][0])]}
        if not batched and return_tensors is None:
            batch = {name: values[0] for name, values in batch.items()}
        return BatchEncoding(batch, tensor_type=return_tensors)

    def _ids_of(self, text: Any, how: Encoding) -> list[int]:
        """Ids of a text, of its words, or of its tokens; ids stay as they are."""
        if isinstance(text, str):
            return self._spell(text, how.split, how.verbose)
        if not (len(text) and isinstance(text[0], str)):
            return [*text]
        if how.words:
            return [index for word in text for index in self._spell(word, how.split, how.verbose)]
        return [self._id(token) for token in text]

    def encode(
        self,
        text: Any,
        text_pair: Any = None,
        add_special_tokens: bool = True,
        *,
        verbose: bool = True,
        **options: Any,
    ) -> Any:
        """The ids alone of what `__call__` gives, of one text as a list."""
        if isinstance(text, str) and text_pair is None and not options:
            return self._spell(text, None, verbose)
        return self(text, text_pair, add_special_tokens=add_special_tokens, verbose=verbose, **options)[
            "input_ids"
        ]

    def prepare_for_model(
        self, ids: Sequence[int], pair_ids: Sequence[int] | None = None, **options: Any
    ) -> BatchEncoding:
        """What `__call__` gives of a text whose ids these are."""
        return self(ids, pair_ids, **options)

    def _spell(self, text: str, split: bool | None, verbose: bool) -> list[int]:
        tokens = self.tokenize(text, split_special_tokens=split)
        if verbose:
            self._tell_of_unknown(tokens)
        return [self._id(token) for token in tokens]

    def __getstate__(self) -> dict[str, Any]:
        """Without what was told: use does not change what is pickled, and caches know it by its hash."""
        return {name: value for name, value in vars(self).items() if name != "_told"}

    @cached_property
    def _told(self) -> set[str]:
        return set()

    def _tell_of_unknown(self, tokens: Iterable[str]) -> None:
        """Warn once of each character that labels do without."""
        unknown = {token for token in tokens if token not in self._ids} - self._told
        if unknown and self.unk_token is not None:
            self._told.update(unknown)
            logger.warning(
                "the vocabulary has no token for %s: each becomes %s. Normalise the texts, or use a "
                "vocabulary that has them.",
                enumerate_names([repr(token) for token in unknown]),
                self.unk_token,
            )

    def tokenize(
        self,
        text: str,
        pair: str | None = None,
        add_special_tokens: bool = False,
        *,
        split_special_tokens: bool | None = None,
    ) -> list[str]:
        """Tokens of one text: those that are kept whole, and between them every character by itself.

        Where whole tokens overlap, the one that begins first counts, and of several the longest. White space
        next to a longer token of the vocabulary goes with it, as published.

        Args:
            pair, add_special_tokens: accepted as published, and without effect.
            split_special_tokens: keep none whole; as the tokenizer is set unless told.
        """
        if self.split_special_tokens if split_special_tokens is None else split_special_tokens:
            return self._characters(text)
        tokens: list[str] = []
        special = set(self.all_special_tokens)
        for part in self._split(text):
            if part in self._split.tokens or part in special:
                tokens.append(part)
            else:
                tokens += self._characters(part)
        return tokens

    def _characters(self, text: str) -> list[str]:
        delimiter = self.word_delimiter_token or " "
        characters = text.upper() if self.do_lower_case else text
        return [delimiter if character == " " else character for character in characters]

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """None: a CTC tokenizer adds none."""
        return 0

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """The ids of a text, and of its pair behind it: nothing is added."""
        return [*token_ids_0, *(token_ids_1 or ())]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """0 for each id of a text, 1 for each of its pair."""
        return [0] * len(token_ids_0) + [1] * len(token_ids_1 or ())

    def get_special_tokens_mask(
        self,
        token_ids_0: list[int],
        token_ids_1: list[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 for special tokens, which only ids that have them already can have: none are added."""
        special = set(self.all_special_ids) if already_has_special_tokens else ()
        return [int(index in special) for index in (*token_ids_0, *(token_ids_1 or ()))]

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: Padding = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: TensorType | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Bring ids of several texts to one length.

        Args:
            encoded_inputs: {"input_ids": [[...], ...]}, with "attention_mask", "token_type_ids" and
                "special_tokens_mask" or without, or a list with a mapping for each text, as a data loader has
                it; or {"input_ids": [...]} of one text. Other entries pass through.
            padding, max_length, pad_to_multiple_of, padding_side: as in `__call__`.
            return_tensors: as in `__call__`; tensors in, tensors out.
            verbose: accepted as published, and without effect.
        """
        batch = dict(columns(encoded_inputs, "input_ids"))
        rows = batch["input_ids"]
        if not len(rows):
            return BatchEncoding({**batch, "attention_mask": []} if return_attention_mask else batch)
        if return_tensors is None and isinstance(rows[0], (torch.Tensor, np.ndarray)):
            return_tensors = "pt" if isinstance(rows[0], torch.Tensor) else "np"
        single = np.ndim(rows[0]) == 0
        if single:
            batch = {name: [value] for name, value in batch.items()}

        lengths = [len(row) for row in batch["input_ids"]]
        length = padded_length(lengths, padding, max_length, pad_to_multiple_of)
        if length is not None and self.pad_token_id is None:
            raise ValueError("there is no pad_token to pad with")
        if return_attention_mask is not None and not return_attention_mask:
            batch.pop("attention_mask", None)
        elif "attention_mask" not in batch:
            batch["attention_mask"] = [[1] * size for size in lengths]
        filling = {"input_ids": self.pad_token_id or 0, "attention_mask": 0}
        filling |= {"token_type_ids": self.pad_token_type_id, "special_tokens_mask": 1}
        side = padding_side or self.padding_side
        for name in filling.keys() & batch.keys():
            arrays = [np.asarray(row, np.int64) for row in batch[name]]
            batch[name] = [pad_to(row, length, filling[name], side).tolist() for row in arrays]
        if single:
            batch = {name: value[0] for name, value in batch.items()}
        return BatchEncoding(batch, tensor_type=return_tensors)
