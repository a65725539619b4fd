"""Finding a checkpoint's files, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from w2vbert.pretrained.hub import CheckpointNotFoundError, checkpoint_file, read_json

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
    assert checkpoint_file(tmp_path, "config.json") == tmp_path / "config.json"
    assert checkpoint_file(str(tmp_path), "vocab.json", required=False) is None
    with pytest.raises(CheckpointNotFoundError, match=r"has no vocab\.json"):
        checkpoint_file(tmp_path, "vocab.json")


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/directory", "a/b/c", "", "owner/"])
def test_missing_directory_never_asks_the_hub(name: str) -> None:
    with pytest.raises(CheckpointNotFoundError, match="there is no directory"):
        checkpoint_file(name, "config.json", required=False)


def test_hub_cache_is_honoured(hub_cache: Path) -> None:
    path = checkpoint_file("owner/model", "config.json", cache_dir=hub_cache, local_files_only=True)
    assert path is not None
    assert read_json(path) == {"hidden_size": 16}
    pinned = checkpoint_file(
        "owner/model", "config.json", revision=COMMIT, cache_dir=hub_cache, local_files_only=True
    )
    assert pinned == path


def test_offline_with_a_cached_checkpoint(hub_cache: Path) -> None:
    """An optional file that the cached checkpoint lacks is simply not there; a required one is an error."""
    options = {"cache_dir": hub_cache, "local_files_only": True}
    assert checkpoint_file("owner/model", "adapter.eng.safetensors", required=False, **options) is None
    with pytest.raises(CheckpointNotFoundError, match=r"vocab\.json of 'owner/model' is not in the local"):
        checkpoint_file("owner/model", "vocab.json", **options)


def test_offline_without_the_checkpoint(tmp_path: Path) -> None:
    """Nothing is known about the checkpoint: not even an optional file may be taken as absent."""
    for required in (True, False):
        with pytest.raises(CheckpointNotFoundError, match="give its directory"):
            checkpoint_file(
                "owner/other",
                "config.json",
                cache_dir=tmp_path,
                local_files_only=True,
                required=required,
            )


@pytest.mark.parametrize("content", ["{", "[1]", "\xff"])
def test_read_json_names_the_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json"):
        read_json(path)
