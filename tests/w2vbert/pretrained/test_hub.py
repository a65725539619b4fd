"""Finding a checkpoint's files, without a network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from w2vbert.config import ConfigError, Wav2Vec2BertConfig
from w2vbert.pretrained.hub import CheckpointNotFoundError, MissingFileError, Source, read_json

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path: Path) -> Path:
    """A hub cache that holds `owner/model` with a config.json and nothing else."""
    repository = tmp_path / "cache" / "models--owner--model"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"hidden_size": 16}')
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return tmp_path / "cache"


def test_directory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert Source(tmp_path).file("config.json") == tmp_path / "config.json"
    assert Source(str(tmp_path)).find("vocab.json") is None
    with pytest.raises(MissingFileError, match=r"has no vocab\.json"):
        Source(tmp_path).file("vocab.json")


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/directory", "a/b/c", "", "owner/"])
def test_missing_directory_never_asks_the_hub(name: str) -> None:
    with pytest.raises(CheckpointNotFoundError, match="there is no directory"):
        Source(name).find("config.json")


def test_hub_cache_is_honoured(hub_cache: Path) -> None:
    source = Source("owner/model", cache_dir=hub_cache, local_files_only=True)
    path = source.file("config.json")
    assert read_json(path) == {"hidden_size": 16}
    assert replace(source, revision=COMMIT).file("config.json") == path


def test_offline_with_a_cached_checkpoint(hub_cache: Path) -> None:
    """An optional file that the cached checkpoint lacks is simply not there; a required one is an error."""
    source = Source("owner/model", cache_dir=hub_cache, local_files_only=True)
    assert source.find("adapter.eng.safetensors") is None
    with pytest.raises(CheckpointNotFoundError, match=r"vocab\.json of 'owner/model' is not in the local"):
        source.file("vocab.json")


def test_offline_without_the_checkpoint(tmp_path: Path) -> None:
    """Nothing is known about the checkpoint: not even an optional file may be taken as absent."""
    source = Source("owner/other", cache_dir=tmp_path, local_files_only=True)
    for ask in (source.file, source.find):
        with pytest.raises(CheckpointNotFoundError, match="give its directory"):
            ask("config.json")


def test_options_of_a_caller(hub_cache: Path) -> None:
    given = {"revision": COMMIT, "cache_dir": hub_cache, "local_files_only": True, "token": "secret"}
    arguments = {**given, "hidden_size": 32}
    source = Source.take("owner/model", arguments)
    assert arguments == {"hidden_size": 32}
    assert source.options == given
    assert "secret" not in repr(source)
    assert Wav2Vec2BertConfig.from_pretrained("owner/model", **given, hidden_size=32).hidden_size == 32
    with pytest.raises(ConfigError, match="revisions"):
        Wav2Vec2BertConfig.from_pretrained("owner/model", **given, revisions="main")


@pytest.mark.parametrize("content", ["{", "[1]", "\xff"])
def test_read_json_names_the_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json"):
        read_json(path)
