"""Text to ids: the half of the tokenizer that makes labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from w2vbert.features.batch import BatchEncoding, TensorType, to_tensor
from w2vbert.features.padding import NO_LIMIT, Padding, columns, pad_to, padded_length, truncated_length
from w2vbert.tokenizer.tokens import TokenTable


class TextEncoder(TokenTable):
    """Spells texts in ids, one by one or as a batch."""

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
        for part in self._split(text):
            if part in self._split.tokens or part in special:
                tokens.append(part)
            else:
                characters = part.upper() if self.do_lower_case else part
                tokens += (self._delimited(character) for character in characters)
        return tokens

    def _delimited(self, character: str) -> str:
        return self.word_delimiter_token or character if character == " " else character

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
