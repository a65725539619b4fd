"""The arguments that `save_pretrained` and `from_pretrained` take as published, and the way to the hub."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

# Arguments of published methods that are about weights, or about what is not supported. They are taken where
# they ask for nothing.
_SAVING = frozenset(
    {"is_main_process", "state_dict", "safe_serialization", "variant", "max_shard_size", "save_jinja_files"}
)
_LOADING = frozenset(
    {"attn_implementation", "code_revision", "config", "device_map", "dtype", "torch_dtype", "state_dict"}
    | {"gguf_file", "mirror", "proxies", "quantization_config", "resume_download", "return_unused_kwargs"}
    | {"trust_remote_code", "use_fast", "use_safetensors", "user_agent", "variant"}
)
# Of these True asks for nothing either: it is so anyway.
_TRUE_ANYWAY = ("is_main_process", "safe_serialization", "save_jinja_files", "use_fast")


class HubError(OSError):
    """The hub cannot be reached, or does not take what it is given."""


@dataclass(frozen=True)
class Upload:
    """What the hub is told of an upload.

    Attributes:
        repo_id: `owner/name`; made if it is not there.
        private: of a repository that is made.
        commit_message, commit_description, token, revision, create_pr: as in `huggingface_hub`.
    """

    repo_id: str
    commit_message: str | None = None
    commit_description: str | None = None
    private: bool | None = None
    token: str | bool | None = field(default=None, repr=False)
    revision: str | None = None
    create_pr: bool = False

    @classmethod
    def take(cls, repo_id: str, arguments: dict[str, Any]) -> Self:
        """Take the options out of a caller's keyword arguments; the others stay in them."""
        names = [name for name in cls.__dataclass_fields__ if name in arguments]
        return cls(**{"repo_id": repo_id, **{name: arguments.pop(name) for name in names}})

    def send(self, folder: str | os.PathLike[str], files: Sequence[str], what: str) -> str:
        """Upload files of a folder; the address of the commit is returned.

        Raises:
            HubError: no network, no permission, or a name that cannot be.
        """
        from huggingface_hub import HfApi  # late: its import is not free

        api, options = HfApi(token=self.token), asdict(self)
        del options["private"], options["token"]
        options["commit_message"] = self.commit_message or f"Upload {what}"
        names = [Path(file).relative_to(folder).as_posix() for file in files if Path(file).exists()]
        try:
            options["repo_id"] = api.create_repo(self.repo_id, private=self.private, exist_ok=True).repo_id
            return str(
                api.upload_folder(folder_path=Path(folder), allow_patterns=names, **options).commit_url
            )
        except Exception as error:  # the hub's client raises those of its transport, which changes
            raise HubError(
                f"{self.repo_id!r} cannot be uploaded to the hub ({type(error).__name__}: {error}). Check "
                "the network (or HF_HUB_OFFLINE), the token and the name; save_pretrained needs none of them."
            ) from error


class Publishable:
    """What can be saved in a folder can be put on the hub."""

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> Sequence[str]:
        raise NotImplementedError

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Save, and upload the files.

        Args:
            repo_id: `owner/name`; made if it is not there.
            kwargs: the other fields of `Upload`.

        Returns:
            The address of the commit.

        Raises:
            HubError: no network, no permission, or a name that cannot be.
        """
        upload = Upload.take(repo_id, kwargs)
        refuse_unknown("push_to_hub", kwargs, _SAVING)
        with tempfile.TemporaryDirectory() as folder:
            return upload.send(folder, self.save_pretrained(folder), type(self).__name__)


def uploading(
    save_directory: str | os.PathLike[str], push_to_hub: bool, arguments: dict[str, Any]
) -> Upload | None:
    """What the keyword arguments of `save_pretrained` ask the hub for.

    Raises:
        TypeError: an argument that is not known, or one without a meaning here that asks for something.
    """
    upload = Upload.take(Path(save_directory).name, arguments)
    refuse_unknown("save_pretrained", arguments, _SAVING)
    return upload if push_to_hub else None


def drop_meaningless(arguments: dict[str, Any]) -> None:
    """Take out of the keyword arguments of a `from_pretrained` what asks for nothing.

    Raises:
        TypeError: an argument without a meaning here that asks for something.
    """
    meaningless = {name: arguments.pop(name) for name in _LOADING & arguments.keys()}
    refuse_unknown("from_pretrained", meaningless, _LOADING)


def refuse_unknown(method: str, arguments: dict[str, Any], names: frozenset[str]) -> None:
    """Raises `TypeError` for an argument of another name, or one that asks for something."""
    for name, value in arguments.items():
        asks = value not in (None, False) and not (value is True and name in _TRUE_ANYWAY)
        if name not in names or asks:
            why = f"{name}={value!r} means nothing here" if name in names else f"it has no argument {name!r}"
            raise TypeError(f"{method}: {why}")
