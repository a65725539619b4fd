"""Lexicon and language model as bytes: what is refused before any work, and what other nodes get."""

from __future__ import annotations

import gzip
import json
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import JobError
from pipeline.storage import Storage, StorageOptions
from pipeline.tasks.decoding.files import LANGUAGE_MODEL, LEXICON, DecodingFiles, _load, read_decoding_files
from pipeline.tasks.decoding.options import TranscriptOptions
from tests.ngrams import arpa, lexicon
from w2vbert import Wav2Vec2CTCTokenizer

STORAGE = Storage(StorageOptions())
SENTENCES = ["one two three", "three two one", "nine nine"]


@pytest.fixture
def tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wav2Vec2CTCTokenizer:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return vocabulary(tmp_path)


@pytest.fixture
def options(tmp_path: Path) -> TranscriptOptions:
    (tmp_path / "lexicon.txt").write_text(lexicon())
    (tmp_path / "lm.arpa").write_text(arpa(SENTENCES))
    return TranscriptOptions(lexicon=str(tmp_path / "lexicon.txt"), language_model=str(tmp_path / "lm.arpa"))


def vocabulary(folder: Path, **special: str | None) -> Wav2Vec2CTCTokenizer:
    tokens = ["<pad>", "|", *"efghinorstuvwxz"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    return Wav2Vec2CTCTokenizer(
        folder / "vocab.json", bos_token=None, eos_token=None, unk_token=None, **special
    )


def refusal(options: TranscriptOptions, tokenizer: Wav2Vec2CTCTokenizer) -> str:
    with pytest.raises(JobError) as caught:
        read_decoding_files(options, tokenizer, STORAGE)
    return str(caught.value)


def test_nothing_is_read_for_greedy_decoding(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    files = read_decoding_files(TranscriptOptions(align=True), tokenizer, STORAGE)
    assert (files.digests(), files.path(LEXICON), files.path(LANGUAGE_MODEL)) == (
        {"lexicon_digest": None, "language_model_digest": None},
        None,
        None,
    )


def test_other_nodes_get_the_same_bytes(options: TranscriptOptions, tokenizer: Wav2Vec2CTCTokenizer) -> None:
    files: DecodingFiles = pickle.loads(pickle.dumps(read_decoding_files(options, tokenizer, STORAGE)))
    for name, source in ((LEXICON, options.lexicon), (LANGUAGE_MODEL, options.language_model)):
        made = files.path(name)
        assert made is not None
        assert made != Path(str(source))
        assert made.read_bytes() == Path(str(source)).read_bytes()


def test_digests_follow_the_bytes_not_the_place(
    options: TranscriptOptions, tokenizer: Wav2Vec2CTCTokenizer, tmp_path: Path
) -> None:
    first = read_decoding_files(options, tokenizer, STORAGE).digests()
    assert sorted(first) == ["language_model_digest", "lexicon_digest"]
    moved = tmp_path / "moved.lm"
    moved.write_text(arpa(SENTENCES))
    changed = options.model_copy(update={"language_model": str(moved)})
    assert read_decoding_files(changed, tokenizer, STORAGE).digests() == first
    moved.write_text(arpa([*SENTENCES, "zero"]))
    other = read_decoding_files(changed, tokenizer, STORAGE).digests()
    assert other["lexicon_digest"] == first["lexicon_digest"]
    assert other["language_model_digest"] != first["language_model_digest"]


@pytest.mark.parametrize("option", ["lexicon", "language_model"])
def test_missing_file(options: TranscriptOptions, tokenizer: Wav2Vec2CTCTokenizer, option: str) -> None:
    said = refusal(options.model_copy(update={option: "/no/such/file"}), tokenizer)
    assert said == f"--{option.replace('_', '-')} /no/such/file does not exist."


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"one\to n e |\ntwenty\tt w e n t y |\n", "line 2: 'y' is not in the vocabulary"),
        (b"one\to n e |\ntwo\n", "line 2: 'two' without tokens"),
        (b"", "no word that the vocabulary can spell"),
        ("café\tc a f é |\n".encode("latin-1"), "is not UTF-8 text"),
    ],
)
def test_lexicon_that_cannot_be_used(
    options: TranscriptOptions, tokenizer: Wav2Vec2CTCTokenizer, content: bytes, said: str
) -> None:
    Path(str(options.lexicon)).write_bytes(content)
    message = refusal(options, tokenizer)
    assert message.startswith(f"--lexicon {options.lexicon}: ")
    assert said in message
    assert tempfile.gettempdir() not in message


MODEL = arpa(SENTENCES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "End of file"),
        (b"hello\nworld\n", 'first non-empty line was "hello"'),
        (MODEL[: len(MODEL) // 2].encode(), "byte"),
        (MODEL.replace("\t<unk>", " unk").encode(), "byte"),
        (MODEL.replace("ngram 2=", "ngram 2=1").encode(), "byte"),
        (MODEL.replace("<s>", "<t>").encode(), "missing <s>"),
        (bytes(range(256)) * 20, "neither an ARPA file nor a KenLM binary"),
        (b"\x1f\x8b" + bytes(range(256)), "neither an ARPA file nor a KenLM binary"),
        (b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(300), "test values don't match"),
    ],
)
def test_language_model_that_cannot_be_loaded(
    options: TranscriptOptions, tokenizer: Wav2Vec2CTCTokenizer, content: bytes, said: str
) -> None:
    Path(str(options.language_model)).write_bytes(content)
    message = refusal(options, tokenizer)
    assert message.startswith(f"--language-model {options.language_model}: ")
    assert said in message
    assert tempfile.gettempdir() not in message


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, len(MODEL) - 8))
def test_a_cut_off_model_is_refused(
    options: TranscriptOptions, tokenizer: Wav2Vec2CTCTokenizer, cut: int
) -> None:
    Path(str(options.language_model)).write_text(MODEL[:cut])
    assert refusal(options, tokenizer).startswith("--language-model")


def test_compressed_model_is_read(options: TranscriptOptions, tokenizer: Wav2Vec2CTCTokenizer) -> None:
    Path(str(options.language_model)).write_bytes(gzip.compress(MODEL.encode()))
    assert read_decoding_files(options, tokenizer, STORAGE).path(LANGUAGE_MODEL) is not None


def test_a_model_that_knows_no_word_is_refused(
    options: TranscriptOptions, tokenizer: Wav2Vec2CTCTokenizer
) -> None:
    """Of upper case, or of words where there is no lexicon: beam search would ignore it in silence."""
    assert "knows none of" in refusal(options.model_copy(update={"lexicon": None}), tokenizer)
    upper = arpa([sentence.upper() for sentence in SENTENCES], words=["ONE", "TWO", "THREE", "NINE"])
    Path(str(options.language_model)).write_text(upper.replace("<S>", "<s>").replace("</S>", "</s>"))
    assert "knows none of" in refusal(options, tokenizer)


@pytest.mark.slow
def test_a_process_that_kenlm_ends_is_survived(
    options: TranscriptOptions, tokenizer: Wav2Vec2CTCTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KenLM trusts the numbers inside of its binaries. Which bytes make it crash depends on its build."""
    Path(str(options.language_model)).write_bytes(b"mmap lm and numbers that end the process")
    monkeypatch.setattr("pipeline.tasks.decoding.files._load", _crash)
    message = refusal(options, tokenizer)
    assert message == (
        f"--language-model {options.language_model}: the file is damaged: KenLM crashes on it."
    )


def _crash(path: Path, entries: list[str]) -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGSEGV)


def test_the_trial_says_nothing_of_what_the_driver_finds_itself(tmp_path: Path) -> None:
    (tmp_path / "lm.bin").write_bytes(b"mmap lm ")
    _load(tmp_path / "lm.bin", ["one"])


@pytest.mark.parametrize("special", [{"pad_token": None}, {"word_delimiter_token": None}])
def test_tokenizer_that_cannot_be_searched(
    tmp_path: Path, options: TranscriptOptions, special: dict[str, None]
) -> None:
    message = refusal(TranscriptOptions(nbest=3), vocabulary(tmp_path, **special))
    assert "vocabulary of the checkpoint" in message
    assert "needs a pad_token (the blank) and a word_delimiter_token" in message


@pytest.mark.slow
def test_absent_package_is_named(tmp_path: Path) -> None:
    """In a process that lacks flashlight-text."""
    vocabulary(tmp_path)
    script = (
        "import sys; sys.modules['flashlight'] = None\n"
        "from pipeline.tasks.decoding.files import *; from pipeline.storage import StorageOptions\n"
        f"tokenizer = Wav2Vec2CTCTokenizer({str(tmp_path / 'vocab.json')!r}, unk_token=None)\n"
        "try: read_decoding_files(TranscriptOptions(nbest=2), tokenizer, Storage(StorageOptions()))\n"
        "except JobError as problem: print(problem)\n"
    )
    root = Path(__file__).resolve().parents[3]
    said = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert "beam search needs flashlight-text: pip install flashlight-text" in said.stdout, said.stderr
    assert "[lm]" in said.stdout
