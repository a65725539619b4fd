"""Lexicon and language model of a job: tried once by the driver, handed to the actors of every node."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.errors import JobError
from pipeline.node_files import Files, digest_of, directory_of
from pipeline.storage import Storage, StorageError
from pipeline.tasks.decoding.options import TranscriptOptions
from w2vbert.decoding.beam import (
    BeamDecoder,
    BeamOptions,
    LanguageModelError,
    LexiconError,
    load_ngrams,
    read_lexicon,
)
from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer

LEXICON, LANGUAGE_MODEL = "lexicon", "language_model"
_KENLM_BINARY = b"mmap lm "
_TRIED_SENTENCES = 20_000


@dataclass(frozen=True)
class DecodingFiles:
    """The files that beam search needs, by the option that names them."""

    files: Files = field(default_factory=dict)

    def path(self, name: str) -> Path | None:
        """Where `LEXICON` or `LANGUAGE_MODEL` is on this node; None: the job has none."""
        if name not in self.files:
            return None
        own = {name: self.files[name]}
        return directory_of(own, digest_of(own)) / name

    def digests(self) -> dict[str, str | None]:
        """What an output's identity says about them: other contents are another output, wherever they lie."""
        return {
            f"{name}_digest": digest_of({name: self.files[name]}) if name in self.files else None
            for name in (LEXICON, LANGUAGE_MODEL)
        }


def read_decoding_files(
    options: TranscriptOptions, tokenizer: Wav2Vec2CTCTokenizer, storage: Storage
) -> DecodingFiles:
    """Reads the files that the options name, local or s3://, and builds the decoder with them once.

    Raises:
        JobError: a file is missing, cannot be used, or does not suit the checkpoint's vocabulary; or
            flashlight-text is absent.
    """
    if options.beam is None:
        return DecodingFiles()
    given = {LEXICON: options.lexicon, LANGUAGE_MODEL: options.language_model}
    files = DecodingFiles({name: _read(name, uri, storage) for name, uri in given.items() if uri is not None})
    try:
        _refuse_crashing(files, tokenizer)
        beam_decoder(options, files, tokenizer)
    except ImportError as problem:
        raise JobError(f"{problem}, or this project with its extra [lm].") from problem
    except ValueError as problem:
        name = {LexiconError: LEXICON, LanguageModelError: LANGUAGE_MODEL}.get(type(problem))
        if name is None:
            raise JobError(f"the vocabulary of the checkpoint cannot be used: {problem}.") from problem
        message = str(problem).replace(str(files.path(name)), str(given[name]))
        raise JobError(f"{_flag(name)} {given[name]}: {message}.") from problem
    return files


def beam_decoder(
    options: TranscriptOptions, files: DecodingFiles, tokenizer: Wav2Vec2CTCTokenizer
) -> BeamDecoder:
    return BeamDecoder(
        tokenizer,
        BeamOptions(
            nbest=options.nbest,
            beam_size=options.beam or 1,
            lm_weight=options.lm_weight,
            word_score=options.word_score,
        ),
        lexicon=files.path(LEXICON),
        language_model=files.path(LANGUAGE_MODEL),
    )


def _read(name: str, uri: str, storage: Storage) -> np.ndarray:
    try:
        return np.frombuffer(storage.read_bytes(storage.normalise(uri)), np.uint8)
    except JobError:
        raise
    except StorageError as problem:
        raise JobError(f"{_flag(name)} {problem}.") from problem


def _refuse_crashing(files: DecodingFiles, tokenizer: Wav2Vec2CTCTokenizer) -> None:
    """Tries a KenLM binary in a process that it may crash, as KenLM trusts the numbers inside.

    No trial reads all of a large model: damage that hides ends an actor later, and with it the job.
    """
    path = files.path(LANGUAGE_MODEL)
    if path is None or files.files[LANGUAGE_MODEL][: len(_KENLM_BINARY)].tobytes() != _KENLM_BINARY:
        return
    lexicon = files.path(LEXICON)
    entries = [*tokenizer.get_vocab()] if lexicon is None else [*read_lexicon(lexicon, tokenizer)]
    trial = multiprocessing.get_context("spawn").Process(target=_load, args=(path, entries))
    trial.start()
    trial.join()
    if trial.exitcode:
        raise LanguageModelError("the file is damaged: KenLM crashes on it")


def _load(path: Path, entries: list[str]) -> None:
    with contextlib.suppress(LanguageModelError):  # the driver meets it too
        model = load_ngrams(path, entries)
        for index in range(len(entries)):
            model.score(model.start(False), index)
        chance = random.Random(0)
        for _ in range(_TRIED_SENTENCES):
            state = model.start(False)
            for index in chance.choices(range(len(entries)), k=6):
                state, _score = model.score(state, index)
            model.finish(state)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
