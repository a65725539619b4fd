"""The tokens of a tokenizer: its vocabulary, the special ones by name, and how each reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from w2vbert.features.padding import NO_LIMIT
from w2vbert.fields import ConfigError, flag, real, shown, text
from w2vbert.pretrained.hub import read_json
from w2vbert.tokenizer.collapse import PathCollapser
from w2vbert.tokenizer.vocabulary import AddedToken, TokenSplitter, Vocabulary

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class TokenTable:
    """The part of `Wav2Vec2CTCTokenizer`, which says what the arguments are, that both directions read."""

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
        /,
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
                raise ConfigError(name, f"must be 'right' or 'left', is {shown(side)}")
        further = {name: extra.pop(name) for name, value in list(extra.items()) if _names_token(name, value)}
        named = {
            "bos_token": bos_token,
            "eos_token": eos_token,
            "unk_token": unk_token,
            "pad_token": pad_token,
            **further,
            "word_delimiter_token": word_delimiter_token,
        }
        order = [*_NAMED_TOKENS, *(name for name in named if name not in _NAMED_TOKENS)]
        special = {name: _token(name, named[name]) for name in order if named.get(name) is not None}
        more = [_token("extra_special_tokens", token) for token in extra_special_tokens or ()]
        self.special_tokens_map = {name: str(token) for name, token in special.items()}
        self.extra_special_tokens = [str(token) for token in more]
        self.replace_word_delimiter_char = text("replace_word_delimiter_char", replace_word_delimiter_char)
        self.do_lower_case = flag("do_lower_case", do_lower_case)
        self.model_max_length = NO_LIMIT if model_max_length is None else model_max_length
        real("model_max_length", self.model_max_length, 1, float("inf"))
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

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The id of a token (str), or the ids of a list of tokens; for unknown ones that of `unk_token`."""
        return self._id(tokens) if isinstance(tokens, str) else [self._id(token) for token in tokens]

    def _id(self, token: str) -> int:
        index = self._ids.get(token, self.unk_token_id)
        if index is None:
            raise ValueError(f"{token!r} is not in the vocabulary, and there is no unk_token")
        return index


def _token(name: str, value: Any) -> str | AddedToken:
    """The value, if it is a token."""
    if isinstance(value, str | AddedToken):
        text(name, str(value))
        return value
    raise ConfigError(name, f"must be a token (text, or an object with its content), is {shown(value)}")


def _names_token(name: str, value: Any) -> bool:
    """Whether an unknown argument is a special token: there are switches such as `add_bos_token`."""
    return name.endswith("_token") and isinstance(value, str | AddedToken | None)
