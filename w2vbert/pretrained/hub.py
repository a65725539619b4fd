"""Where a checkpoint's files are: a local directory, or the Hugging Face hub and its cache."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


class CheckpointNotFoundError(OSError):
    """A checkpoint, or a file that it must have, is not there or cannot be reached."""


def checkpoint_file(
    name_or_path: str | os.PathLike[str],
    filename: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    required: bool = True,
) -> Path | None:
    """The local path of one file of a checkpoint, downloaded into the hub's cache first where needed.

    Args:
        name_or_path: an existing directory, or a hub id (`owner/name`). A directory always wins.
        filename: path of the file inside the checkpoint, such as `config.json`.
        revision, cache_dir, token, local_files_only: as in `huggingface_hub`; unused for a directory.
        required: what to do when the checkpoint exists but has no such file: raise, or return `None`.

    Raises:
        CheckpointNotFoundError: no such directory or repository, a required file missing from it, or the hub
            out of reach with nothing in the cache.
    """
    if os.path.isdir(name_or_path):
        directory = Path(name_or_path)
        path = directory / filename
        if path.is_file():
            return path
        if required:
            raise CheckpointNotFoundError(f"{directory} has no {filename}: is it a checkpoint directory?")
        return None
    if not _HUB_ID.fullmatch(os.fspath(name_or_path)):
        raise CheckpointNotFoundError(
            f"there is no directory {os.fspath(name_or_path)!r} (and a hub id has the form owner/name)"
        )
    return _hub_file(
        os.fspath(name_or_path), filename, revision, cache_dir, token, local_files_only, required
    )


def _hub_file(
    repo_id: str,
    filename: str,
    revision: str | None,
    cache_dir: str | Path | None,
    token: str | bool | None,
    local_files_only: bool,
    required: bool,
) -> Path | None:
    # Imported late: local checkpoints need no hub, and its import is not free.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        path = hf_hub_download(
            repo_id,
            filename,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
        )
        return Path(path)
    except LocalEntryNotFoundError as error:  # offline, or told to be: the cache alone can answer
        if not required and _in_cache(repo_id, revision, cache_dir):
            return None
        raise CheckpointNotFoundError(
            f"{filename} of {repo_id!r} is not in the local cache and the hub cannot be reached "
            "(no network, HF_HUB_OFFLINE, or local_files_only). Download the checkpoint once where there is "
            "a network, or give its directory."
        ) from error
    except GatedRepoError as error:
        raise CheckpointNotFoundError(
            f"access to {repo_id!r} must be asked for on the hub; then give a token"
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointNotFoundError(
            f"the hub has no repository {repo_id!r} (if it is private, give a token), "
            "and there is no directory of that name"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointNotFoundError(f"{repo_id!r} has no revision {revision!r}") from error
    except EntryNotFoundError as error:
        if not required:
            return None
        raise CheckpointNotFoundError(f"{repo_id!r} on the hub has no {filename}") from error


def _in_cache(repo_id: str, revision: str | None, cache_dir: str | Path | None) -> bool:
    """Whether the cache holds the checkpoint's config.json: an optional file it lacks then is absent."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(
        try_to_load_from_cache(repo_id, "config.json", cache_dir=cache_dir, revision=revision), str
    )


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A JSON object from a UTF-8 file.

    Raises:
        ValueError: not JSON, or not an object; the message names the file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} should hold a JSON object, not a {type(content).__name__}")
    return content
