"""Where a checkpoint's files are: a local directory, or the Hugging Face hub and its cache."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from w2vbert.fields import ConfigError

MAX_JSON_BYTES = 8 << 20
_MAX_VALUES, _MAX_DEPTH = 1 << 19, 50
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
# What callers of published methods pass and what changes nothing here.
WITHOUT_EFFECT = frozenset(
    {"low_cpu_mem_usage", "proxies", "resume_download", "trust_remote_code", "_from_auto", "_from_pipeline"}
)


class CheckpointNotFoundError(OSError):
    """A checkpoint, or a file that it must have, is not there or cannot be reached."""


class MissingFileError(CheckpointNotFoundError):
    """The checkpoint is there, this file of it is not."""


@dataclass(frozen=True)
class Source:
    """A checkpoint, and how to ask the hub for it.

    Attributes:
        name_or_path: an existing directory, or a hub id (`owner/name`). A directory always wins.
        subfolder: where in the directory or repository the files are.
        revision, cache_dir, token, local_files_only, force_download: as in `huggingface_hub`; unused for a
            directory.
    """

    name_or_path: str | os.PathLike[str]
    revision: str | None = None
    cache_dir: str | Path | None = None
    token: str | bool | None = field(default=None, repr=False)
    local_files_only: bool = False
    force_download: bool = False
    subfolder: str = ""

    @classmethod
    def take(cls, name_or_path: str | os.PathLike[str], arguments: dict[str, Any]) -> Source:
        """Take the hub's options out of a caller's keyword arguments; the others stay in them."""
        options = [name for name in cls.__dataclass_fields__ if name != "name_or_path"]
        given = {name: arguments.pop(name) for name in options if name in arguments}
        # None means not given, as published.
        return cls(name_or_path, **{name: value for name, value in given.items() if value is not None})

    @property
    def options(self) -> dict[str, Any]:
        """The hub's options that are not as usual, as keyword arguments of every `from_pretrained`."""
        return {
            option.name: getattr(self, option.name)
            for option in fields(self)
            if option.name != "name_or_path" and getattr(self, option.name) != option.default
        }

    def file(self, filename: str) -> Path:
        """The local path of a file of the checkpoint, downloaded into the hub's cache first where needed.

        Args:
            filename: path inside the checkpoint, such as `config.json`.

        Raises:
            MissingFileError: the checkpoint has no such file.
            CheckpointNotFoundError: no such directory or repository, or the hub out of reach with nothing in
                the cache.
        """
        name = os.fspath(self.name_or_path)
        if not os.path.isdir(name):
            if not _HUB_ID.fullmatch(name):
                raise CheckpointNotFoundError(
                    f"there is no directory {name!r} (and a hub id has the form owner/name)"
                )
            return self._download(name, filename)
        path = Path(name) / self.subfolder / filename
        if not path.is_file():
            raise MissingFileError(f"{path.parent} has no {filename}: is it a checkpoint directory?")
        return path

    def find(self, filename: str) -> Path | None:
        """As `file`, but `None` where the checkpoint has no such file.

        Raises:
            CheckpointNotFoundError: as `file`.
        """
        try:
            return self.file(filename)
        except MissingFileError:
            return None

    def _download(self, repo_id: str, filename: str) -> Path:
        # Imported late: local checkpoints need no hub, and its import is not free.
        from huggingface_hub import errors, hf_hub_download

        try:
            return Path(hf_hub_download(repo_id, filename, **self.options))
        except errors.LocalEntryNotFoundError as error:  # offline, or told to be: the cache alone can answer
            kind = MissingFileError if self._is_cached(repo_id) else CheckpointNotFoundError
            raise kind(
                f"{filename} of {repo_id!r} is not in the local cache and the hub cannot be reached "
                "(no network, HF_HUB_OFFLINE, or local_files_only). Download the checkpoint once where there "
                "is a network, or give its directory."
            ) from error
        except errors.GatedRepoError as error:
            raise CheckpointNotFoundError(
                f"access to {repo_id!r} must be asked for on the hub; then give a token"
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise CheckpointNotFoundError(
                f"the hub has no repository {repo_id!r} (if it is private, give a token), "
                "and there is no directory of that name"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise CheckpointNotFoundError(f"{repo_id!r} has no revision {self.revision!r}") from error
        except errors.EntryNotFoundError as error:
            raise MissingFileError(f"{repo_id!r} on the hub has no {filename}") from error

    def _is_cached(self, repo_id: str) -> bool:
        """Whether the cache holds the checkpoint's config.json: another file it lacks is then absent."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(
            repo_id,
            os.path.join(self.subfolder, "config.json"),
            cache_dir=self.cache_dir,
            revision=self.revision,
        )
        return isinstance(found, str)


def upload(
    write: Callable[[Path], object],
    repo_id: str,
    options: dict[str, Any],
    *,
    tags: Sequence[str] | None = None,
) -> str:
    """Upload files to a repository of the hub, which is made if need be.

    Args:
        write: writes the files into a folder.
        repo_id: `owner/name`, or a name in the account of the token.
        options: `private` and `token` as in `huggingface_hub.create_repo`; `commit_message`,
            `commit_description`, `revision` and `create_pr` as in `upload_folder`.
        tags: of a card that is written where a model has none.

    Returns:
        The address of the commit.

    Raises:
        TypeError: an option that is none of these.
        ConnectionError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi, ModelCard, ModelCardData, errors

    names = ("private", "token", "commit_message", "commit_description", "revision", "create_pr")
    if strange := sorted(options.keys() - set(names)):
        raise TypeError(f"push_to_hub has no argument {strange[0]!r}; it takes {', '.join(names)}")
    given = {**dict.fromkeys(names), **options}
    private, token = given.pop("private"), given.pop("token")
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        if tags:
            card = ModelCardData(tags=list(tags), library_name="w2vbert").to_yaml()
            ModelCard(f"---\n{card}\n---\n").save(Path(folder) / "README.md")
        try:
            api = HfApi(token=token)
            name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            return str(api.upload_folder(repo_id=name, folder_path=folder, **given))
        except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, OSError) as error:
            raise ConnectionError(
                f"{repo_id!r} was not uploaded, for the hub cannot be reached or refuses: {error}. "
                "save_pretrained writes the same files into a folder."
            ) from error


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A JSON object from a UTF-8 file.

    Raises:
        ConfigError: not JSON, not an object, too large, or nested too deeply; the message names the file.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise ConfigError(
            str(path), f"has {size:,} bytes, and JSON of a checkpoint at most {MAX_JSON_BYTES:,}"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(str(path), f"is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(str(path), f"should hold a JSON object, not a {type(content).__name__}")
    level: list[Any] = [content]
    count = depth = 0
    while level:
        count, depth = count + len(level), depth + 1
        if depth > _MAX_DEPTH or count > _MAX_VALUES:
            raise ConfigError(
                str(path), f"has more than {_MAX_VALUES:,} values, or nests them {_MAX_DEPTH} deep"
            )
        nested = (item for item in level if isinstance(item, dict | list))
        level = [child for item in nested for child in (item.values() if isinstance(item, dict) else item)]
    return content
