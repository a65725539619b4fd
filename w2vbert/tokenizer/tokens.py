"""The tokens of a tokenizer: its vocabulary, the special ones by name, and how each reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from w2vbert.features.padding import NO_LIMIT
from w2vbert.fields import ConfigError, flag, real, shown, text
from w2vbert.pretrained.hub import read_json
from w2vbert.tokenizer.collapse import PathCollapser
from w2vbert.tokenizer.vocabulary import AddedToken, TokenSplitter, Vocabulary

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class NameTakenError(ConfigError, AttributeError):
    """An argument that nothing reads, under the name of a method."""


class TokenTable:
    """The part of `Wav2Vec2CTCTokenizer`, which says what the arguments are, that both directions read.

    Setting a special token, or its id, to a token of the vocabulary changes it everywhere.
    """

    model_input_names: ClassVar[list[str]] = ["input_ids", "attention_mask"]

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
        extra_special_tokens: Iterable[str | AddedToken] | Mapping[str, str | AddedToken] | None = None,
        added_tokens_decoder: Mapping[int, AddedToken] | None = None,
        model_max_length: int | None = None,
        padding_side: Literal["right", "left"] = "right",
        truncation_side: Literal["right", "left"] = "right",
        clean_up_tokenization_spaces: bool | None = False,
        split_special_tokens: bool = False,
        **extra: Any,
    ) -> None:
        for name, side in (("padding_side", padding_side), ("truncation_side", truncation_side)):
            if side not in ("right", "left"):
                raise ConfigError(name, f"must be 'right' or 'left', is {shown(side)}")
        self.refuse_methods(extra)
        if isinstance(extra_special_tokens, Mapping):
            extra, extra_special_tokens = {**extra, **extra_special_tokens}, None
        more = extra_special_tokens or extra.pop("additional_special_tokens", None) or ()
        named = {
            "bos_token": bos_token,
            "eos_token": eos_token,
            "unk_token": unk_token,
            "pad_token": pad_token,
            **{name: extra.pop(name) for name, value in list(extra.items()) if _names_token(name, value)},
            "word_delimiter_token": word_delimiter_token,
        }
        self.replace_word_delimiter_char = text("replace_word_delimiter_char", replace_word_delimiter_char)
        self.do_lower_case = flag("do_lower_case", do_lower_case)
        self.model_max_length = NO_LIMIT if model_max_length is None else model_max_length
        real("model_max_length", self.model_max_length, 1, float("inf"))
        self.padding_side = padding_side
        self.truncation_side = truncation_side
        self.clean_up_tokenization_spaces = bool(clean_up_tokenization_spaces)
        self.split_special_tokens = flag("split_special_tokens", split_special_tokens)
        self.extra = extra
        self.vocabulary = Vocabulary(read_json(vocab_file), target_lang, source=str(vocab_file))
        self._give_special_tokens(named, more, added_tokens_decoder or {})

    @classmethod
    def refuse_methods(cls, names: Iterable[str]) -> None:
        """Raises `NameTakenError` where a method has one of the names."""
        for name in names:
            if callable(getattr(cls, name, None)):
                raise NameTakenError(name, "conflicts with the method of that name")

    def _give_special_tokens(
        self, named: Mapping[str, Any], more: Iterable[Any], saved: Mapping[int, AddedToken]
    ) -> None:
        order = [*_NAMED_TOKENS, *(name for name in named if name not in _NAMED_TOKENS)]
        special = {name: _token(name, named[name]) for name in order if named.get(name) is not None}
        others = [_token("extra_special_tokens", token) for token in more]
        # The names of all special tokens, in the order in which they are listed.
        self._special: dict[str, str | None] = dict.fromkeys(order)
        self._special.update((name, token.content) for name, token in special.items())
        self._more = [token.content for token in others]

        self.vocabulary.restore(saved)
        known = {token.content for token in self.vocabulary.added.values()}
        new = [token for token in (*special.values(), *others) if token.content not in known]
        self.vocabulary.add(new, special=True)
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
    def vocab(self) -> dict[str, Any]:
        """The content of the vocabulary's file: the vocabularies of all languages where it has several."""
        return self.vocabulary.content

    @property
    def encoder(self) -> dict[str, int]:
        """The id of each token of the vocabulary, without the added ones."""
        return self.vocabulary.encoder

    @property
    def decoder(self) -> dict[int, str]:
        """The token of each id of the vocabulary, without the added ones."""
        return self.vocabulary.decoder

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The tokens that are found in text as a whole, by id."""
        return dict(sorted(self.vocabulary.added.items()))

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """The ids of the tokens that are found in text as a whole."""
        return {token.content: index for index, token in self.added_tokens_decoder.items()}

    def get_added_vocab(self) -> dict[str, int]:
        """`added_tokens_encoder`."""
        return self.added_tokens_encoder

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The special tokens that there are, by name."""
        return {name: token for name, token in self._special.items() if token is not None}

    @property
    def extra_special_tokens(self) -> list[str]:
        """Special tokens without a name."""
        return list(self._more)

    @extra_special_tokens.setter
    def extra_special_tokens(self, tokens: Iterable[str | AddedToken] | None) -> None:
        self._more = [self._existing("extra_special_tokens", token) for token in tokens or ()]
        self._refresh()

    @property
    def extra_special_tokens_ids(self) -> list[int]:
        return [self._id(token) for token in self._more]

    @extra_special_tokens_ids.setter
    def extra_special_tokens_ids(self, ids: Iterable[int] | None) -> None:
        self.extra_special_tokens = [self._of_id("extra_special_tokens_ids", index) for index in ids or ()]

    @property
    def all_special_tokens(self) -> list[str]:
        return list(dict.fromkeys([*self.special_tokens_map.values(), *self._more]))

    @property
    def all_special_ids(self) -> list[int]:
        return [self._id(token) for token in self.all_special_tokens]

    def __setattr__(self, name: str, value: Any) -> None:
        special = name.removesuffix("_id")
        if special not in self.__dict__.get("_special", ()):
            super().__setattr__(name, value)
            if name == "replace_word_delimiter_char" and "_ids" in self.__dict__:
                self._refresh()
            return
        if value is not None:
            value = self._of_id(name, value) if name != special else self._existing(name, value)
        self._special[special] = value
        self._refresh()

    def _existing(self, name: str, value: Any) -> str:
        token = _token(name, value).content
        if token not in self._ids:
            raise ConfigError(
                name,
                f"{token!r} is not in the vocabulary, so it has no id; add_special_tokens adds it",
            )
        return token

    def _of_id(self, name: str, index: Any) -> str:
        token = self.vocabulary.token(index)
        if token is None:
            raise ConfigError(name, f"no token has the id {shown(index)}")
        return token

    def add_tokens(
        self, new_tokens: str | AddedToken | Iterable[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Add tokens behind the vocabulary; those in it already are from now on found as a whole.

        Args:
            new_tokens: text, or `AddedToken`s, those of `tokenizers` and `transformers` too.
            special_tokens: add them to the `extra_special_tokens`.

        Returns:
            How many are new.
        """
        one = AddedToken.like(new_tokens)
        several: Iterable[Any] = new_tokens or ()  # type: ignore[assignment]  # unless it is one
        tokens = [_token("new_tokens", token) for token in several] if one is None else [one]
        return self._add(tokens, special_tokens)

    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_extra_special_tokens: bool = True
    ) -> int:
        """Set special tokens by name, and add those that the vocabulary lacks.

        Args:
            special_tokens_dict: {"pad_token": ..., "extra_special_tokens": [...]}; names of special tokens.
            replace_extra_special_tokens: forget the extra ones there are; they stay in the vocabulary.

        Returns:
            How many are new.

        Raises:
            ValueError: a name that is none of a special token, or a value that is no token.
        """
        tokens: list[AddedToken] = []
        for name, value in special_tokens_dict.items():
            if name in ("extra_special_tokens", "additional_special_tokens"):
                if not isinstance(value, list | tuple):
                    raise ConfigError(name, f"must be a list of tokens, is {shown(value)}")
                more = [_token(name, token) for token in value]
                kept = [] if replace_extra_special_tokens and more else self._more
                self._more = list(dict.fromkeys([*kept, *(token.content for token in more)]))
                tokens += more
            elif name in self._special:
                tokens.append(_token(name, value))
                self._special[name] = tokens[-1].content
            else:
                raise ConfigError(name, f"names no special token; these do: {', '.join(self._special)}")
        return self._add(tokens, special=True)

    def _add(self, tokens: Sequence[AddedToken], special: bool) -> int:
        if self.do_lower_case:
            tokens = [token if special else token.lowered() for token in tokens]
        new = self.vocabulary.add(tokens, special)
        named = set(self.all_special_tokens)
        more = (token.content for token in tokens if token.content and (special or token.special))
        self._more = list(dict.fromkeys([*self._more, *(token for token in more if token not in named)]))
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
        for name, token in self._special.items():
            self.__dict__[name] = token
            self.__dict__[f"{name}_id"] = self._ids.get(token) if token is not None else None

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


def _token(name: str, value: Any) -> AddedToken:
    """The value, if it is a token."""
    token = AddedToken.like(value)
    if token is None:
        raise ConfigError(name, f"must be a token (text, or an object with its content), is {shown(value)}")
    text(name, token.content)
    return token


def _names_token(name: str, value: Any) -> bool:
    """Whether an unknown argument is a special token: there are switches such as `add_bos_token`."""
    return name.endswith("_token") and (value is None or AddedToken.like(value) is not None)
