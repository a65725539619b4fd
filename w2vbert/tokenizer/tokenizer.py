"""Wav2Vec2CTCTokenizer: text to labels, and one id per frame to text with character and word offsets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from w2vbert.fields import fields_of
from w2vbert.pretrained.hub import Source
from w2vbert.publishable import Publishable, saving_options, without_models
from w2vbert.tokenizer.decoding import PathDecoder
from w2vbert.tokenizer.encoding import TextEncoder
from w2vbert.tokenizer.files import CONFIG_FILE, VOCAB_FILE, read_arguments, write_arguments, write_json


class Wav2Vec2CTCTokenizer(TextEncoder, PathDecoder, Publishable):
    """A tokenizer over characters, and longer units, whose padding token is the CTC blank.

    Args:
        vocab_file: JSON with the id of each token, or with such a vocabulary for each of several languages.
        bos_token, eos_token, unk_token, pad_token: special tokens, added if the vocabulary lacks them; None:
            there is none. `pad_token` is the CTC blank.
        word_delimiter_token: stands for the space between words.
        replace_word_delimiter_char: what it becomes in decoded text.
        do_lower_case: the vocabulary is upper case, the text lower case.
        target_lang: which vocabulary of several.
        extra_special_tokens: more special tokens; a mapping gives them names.
        added_tokens_decoder: added tokens with their ids, as saved.
        model_max_length: where truncation cuts when not told.
        padding_side, truncation_side: "right" or "left".
        clean_up_tokenization_spaces: the default of `decode`.
        split_special_tokens: the default of `tokenize`.
        extra: further `..._token` arguments name special tokens; anything else is kept for `save_pretrained`.

    Attributes:
        bos_token, bos_token_id and so on for every special token: None where there is none.

    Raises:
        ConfigError: a vocabulary and a `target_lang` that do not go together, or an impossible value.
    """

    _stands_for = ("transformers.tokenization_utils_base", "PreTrainedTokenizerBase")

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": VOCAB_FILE}
    name_or_path = ""
    is_fast = False
    backend = "custom"
    init_inputs: tuple[Any, ...] = ()
    chat_template = None

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> Wav2Vec2CTCTokenizer:
        """The tokenizer of a checkpoint, as transformers 4 or 5 lays it out.

        Args:
            pretrained_model_name_or_path: a directory or a hub id; of its files only `vocab.json` must exist.
            kwargs: the hub's options (see `w2vbert.pretrained.hub.Source`); arguments to set otherwise than
                the checkpoint does, `target_lang` above all.

        Raises:
            CheckpointNotFoundError: no such checkpoint, or no vocabulary in it.
            ConfigError: as the class.
            TypeError: an argument of the published method that means nothing here.
        """
        source = Source.take(pretrained_model_name_or_path, kwargs)
        kwargs = without_models(kwargs, "from_pretrained")
        cls.refuse_methods(kwargs)
        arguments = {**read_arguments(source), **kwargs}
        with fields_of(f"{source.name_or_path}/{CONFIG_FILE}"):
            tokenizer = cls(**arguments)
        tokenizer.name_or_path = str(source.name_or_path)
        return tokenizer

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """The arguments that make this tokenizer from its vocabulary."""
        return {
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
            "split_special_tokens": self.split_special_tokens,
            "target_lang": self.target_lang,
            "truncation_side": self.truncation_side,
            "added_tokens_decoder": self.added_tokens_decoder,
        }

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> tuple[str, ...]:
        """Write the files that transformers 4 and 5 load; the paths are returned.

        Args:
            legacy_format: None or True: the format with a `vocab.json`, the only one of this tokenizer.
            filename_prefix: put before each file's name, with a dash.
            push_to_hub: upload the files too, to `repo_id` or, where omitted, the name of the directory.
            kwargs: those of `push_to_hub`.

        Raises:
            ConnectionError: the hub cannot be reached, or refuses; the files are written.
        """
        if legacy_format is False:
            raise ValueError("legacy_format=False: this tokenizer has no format of the tokenizers library")
        options = saving_options(push_to_hub, kwargs)
        directory = Path(save_directory)
        directory.mkdir(parents=True, exist_ok=True)
        arguments = {**self.init_kwargs, "tokenizer_class": type(self).__name__}
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        written = write_arguments(directory, prefix, arguments, self.vocab_size)
        files = (*written, *self.save_vocabulary(directory, filename_prefix))
        self._upload(directory, push_to_hub, options)
        return files

    def _set_processor_class(self, processor_class: str) -> None:
        """The published processor says so before it saves its parts; the tokenizer's file keeps it."""
        self.extra["processor_class"] = processor_class

    def save_vocabulary(
        self, save_directory: str | os.PathLike[str], filename_prefix: str | None = None
    ) -> tuple[str]:
        """Write `vocab.json` alone, with the vocabularies of all languages."""
        name = f"{filename_prefix}-{VOCAB_FILE}" if filename_prefix else VOCAB_FILE
        return (write_json(Path(save_directory) / name, self.vocabulary.content),)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} tokens, {self.special_tokens_map})"
