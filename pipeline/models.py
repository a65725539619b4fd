"""The checkpoint of a job: read once by the driver, handed to the actors of every node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import JobError
from pipeline.node_files import Files, digest_of, directory_of
from pipeline.storage import Storage
from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.processor import Wav2Vec2BertProcessor
from w2vbert.weights import CheckpointError, open_weights

_NEEDED = (".json", ".safetensors", ".bin")


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of a checkpoint."""

    name: str
    digest: str
    files: Files

    def directory(self) -> Path:
        """The files in a directory of this node."""
        return directory_of(self.files, self.digest)


def read_checkpoint(model: str, storage: Storage) -> CheckpointFiles:
    """Reads a local directory, an s3:// one, or a hub id.

    Raises:
        JobError: it does not exist, or is no Wav2Vec2-BERT checkpoint.
    """
    uri = _place(model, storage)
    try:
        paths = [path for path in storage.list_files(uri) if path.endswith(_NEEDED)]
        files = {path.rsplit("/", 1)[-1]: np.frombuffer(storage.read_bytes(path), np.uint8) for path in paths}
    except Exception as problem:
        raise JobError(f"--model {storage.explain(model, problem)}.") from problem
    if "config.json" not in files:
        raise JobError(f"--model {model}: no config.json there; a checkpoint directory holds one.")
    if not any(name.endswith((".safetensors", ".bin")) for name in files):
        raise JobError(f"--model {model}: no weights there (model.safetensors or pytorch_model.bin).")
    if "vocab.json" not in files:
        raise JobError(
            f"--model {model}: no vocab.json there; transcribing needs a CTC checkpoint's vocabulary."
        )
    if any(name.endswith(".safetensors") for name in files):
        files = {name: data for name, data in files.items() if not name.endswith(".bin")}
    checkpoint = CheckpointFiles(model, digest_of(files), files)
    _refuse_broken(checkpoint)
    return checkpoint


def _refuse_broken(checkpoint: CheckpointFiles) -> None:
    """Looks at all but the weights' values, so that a damaged checkpoint stops the job and not its actors."""
    directory = checkpoint.directory()

    def find(name: str) -> Path | None:
        return directory / name if name in checkpoint.files else None

    try:
        Wav2Vec2BertConfig.from_pretrained(directory)
        Wav2Vec2BertProcessor.from_pretrained(directory)
        open_weights(find)
    except (ValueError, OSError, CheckpointError) as problem:
        said = str(problem).replace(str(directory), checkpoint.name)
        raise JobError(f"--model {checkpoint.name}: cannot be read: {said}") from problem


def _place(model: str, storage: Storage) -> str:
    if "://" in model or Path(model).expanduser().is_dir():
        return storage.normalise(model)
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download

        try:
            return str(snapshot_download(model, allow_patterns=[f"*{ending}" for ending in _NEEDED]))
        except Exception as problem:
            raise JobError(
                f"--model {model}: neither a directory here nor to be had from the Hugging Face hub "
                f"({type(problem).__name__}). Give a checkpoint's directory, or download it where the hub "
                "can be reached."
            ) from problem
    raise JobError(f"--model {model}: no such directory.")
