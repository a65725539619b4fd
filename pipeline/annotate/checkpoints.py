"""The checkpoints of a job: read once by the driver, handed to the actors of every node.

Checkpoints whose encoders are the same share one: they form a `Backbone`, of which only the first brings the
encoder's weights along.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save

from pipeline.audio.resampling import SAMPLE_RATE
from pipeline.errors import JobError
from pipeline.node_files import CheckpointFiles, Files, digest_of, read_extractor
from pipeline.storage import Storage, is_remote, path_of
from pipeline.tasks.base import Task, TaskFiles
from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor
from w2vbert.fields import enumerate_names
from w2vbert.pretrained.digest import backbone_digest
from w2vbert.pretrained.hub import MAX_JSON_BYTES
from w2vbert.pretrained.model import Wav2Vec2BertPreTrainedModel
from w2vbert.pretrained.weights import CheckpointError, MissingWeightsError

_NEEDED = (".json", ".safetensors", ".bin")


@dataclass(frozen=True)
class Backbone:
    """Checkpoints that one pass of one encoder serves.

    Attributes:
        digest: of the encoder.
        checkpoints: by task; the first holds the encoder and its head, the others only their heads.
        parameters: of the encoder and all heads.
    """

    digest: str
    checkpoints: dict[str, CheckpointFiles]
    parameters: int


@dataclass(frozen=True)
class _Wanted:
    """A checkpoint that the user asked for, and by which flag."""

    task: Task
    name: str
    flag: str

    def error(self, reason: str) -> JobError:
        return JobError(f"{self.flag} {self.name}: {reason}")


@dataclass(frozen=True)
class _Checked:
    """A checkpoint as the driver looks at it: the model with its weights only mapped."""

    files: CheckpointFiles
    model: Wav2Vec2BertPreTrainedModel
    features: tuple[int, int, int, float]
    backbone_digest: str


def read_backbones(
    models: Mapping[str, str], flags: Mapping[str, str], tasks: Mapping[str, Task], storage: Storage
) -> list[Backbone]:
    """Reads every checkpoint of the job, and finds out which share an encoder.

    Args:
        models: where the checkpoint of each task is.
        flags: how the user named it, by task.
        tasks: by name.

    Raises:
        JobError: a checkpoint does not exist, is damaged, is none of Wav2Vec2-BERT, lacks the head for its
            task, or takes other features than the pipeline or than the first one.
    """
    wanted = [_Wanted(tasks[name], place, flags[name]) for name, place in models.items()]
    with ThreadPoolExecutor() as pool:  # two digests of gigabytes each
        checked = [made.result() for made in [pool.submit(_check, one, storage) for one in wanted]]
    found: dict[str, Backbone] = {}
    first = checked[0]
    for checkpoint, one in zip(checked, wanted, strict=True):
        if checkpoint.features != first.features:
            raise one.error(
                f"its features are computed otherwise than those of {first.files.name} "
                "(preprocessor_config.json); annotate with them in runs of their own."
            )
        task, model, digest = one.task.name, checkpoint.model, checkpoint.backbone_digest
        if known := found.get(digest):
            files = _without_encoder(checkpoint.files, model)
            slim = CheckpointFiles(one.name, digest_of(files), files)
            head = sum(tensor.numel() for tensor in _head_of(model, dict(model.named_parameters())).values())
            found[digest] = Backbone(digest, {**known.checkpoints, task: slim}, known.parameters + head)
        else:
            found[digest] = Backbone(digest, {task: checkpoint.files}, model.num_parameters())
    return list(found.values())


def read_checkpoint(name: str, flag: str, storage: Storage) -> CheckpointFiles:
    """The files of a checkpoint, whatever it is one of.

    Raises:
        JobError: there is none.
    """
    return _read_files(_place(name, flag, storage), name, flag, storage)


def configs_of(backbones: Sequence[Backbone]) -> dict[str, Wav2Vec2BertConfig]:
    """The configuration of each task's checkpoint."""
    return {task: files.config for held in backbones for task, files in held.checkpoints.items()}


def extractor_of(backbones: Sequence[Backbone]) -> SeamlessM4TFeatureExtractor:
    """The feature extractor that all checkpoints of the job agree on."""
    return next(iter(backbones[0].checkpoints.values())).extractor


def read_task_files(
    backbones: Sequence[Backbone], tasks: Mapping[str, Task], options: Mapping[str, Any], storage: Storage
) -> dict[str, TaskFiles]:
    """The files that the options of each task name. Their digests belong to the identity of the table.

    Raises:
        JobError: a file is missing or cannot be used.
    """
    return {
        name: read(options[name], checkpoint, storage)
        for held in backbones
        for name, checkpoint in held.checkpoints.items()
        if (read := tasks[name].read_files) is not None
    }


def _read_files(place: str, name: str, flag: str, storage: Storage) -> CheckpointFiles:
    try:
        paths = [path for path in storage.list_files(place) if path.endswith(_NEEDED)]
        for path in paths:
            if path.endswith(".json") and (size := storage.info(path).size) > MAX_JSON_BYTES:
                raise JobError(
                    f"{flag} {path} has {size:,} bytes: more than {MAX_JSON_BYTES:,} are no settings."
                )
        files = {path.rsplit("/", 1)[-1]: _read(path, storage) for path in paths}
    except OSError as problem:
        raise JobError(f"{flag} {problem}.") from problem
    if "config.json" not in files:
        raise JobError(f"{flag} {name}: no config.json there; a checkpoint directory holds one.")
    if not any(file.endswith((".safetensors", ".bin")) for file in files):
        raise JobError(f"{flag} {name}: no weights there (model.safetensors or pytorch_model.bin).")
    if any(file.endswith(".safetensors") for file in files):
        files = {file: data for file, data in files.items() if not file.endswith(".bin")}
    return CheckpointFiles(name, digest_of(files), files)


def _check(wanted: _Wanted, storage: Storage) -> _Checked:
    """A damaged or unfit checkpoint stops the job here, and not its actors."""
    place = _place(wanted.name, wanted.flag, storage)
    checkpoint = _read_files(place, wanted.name, wanted.flag, storage)
    directory = checkpoint.directory() if is_remote(place) else Path(place)
    try:
        extractor = read_extractor(directory)
        model = _load(wanted, directory)
        problem = wanted.task.check(checkpoint, model) if wanted.task.check is not None else None
    except JobError:
        raise
    except Exception as error:  # what torch makes of the files of others has many types
        said = isinstance(error, ValueError | OSError | CheckpointError)
        message = str(error) if said else f"{type(error).__name__}: {error}"
        for copy in (directory, checkpoint.settings()):
            message = message.replace(str(copy), checkpoint.name)
        raise wanted.error(f"cannot be read: {message}") from error
    if problem := problem or _unfit_features(extractor, model):
        raise wanted.error(problem)
    features = (extractor.num_mel_bins, extractor.stride, extractor.sampling_rate, extractor.padding_value)
    return _Checked(checkpoint, model, features, backbone_digest(model))


def _load(wanted: _Wanted, directory: Path) -> Wav2Vec2BertPreTrainedModel:
    kind = wanted.task.model()
    try:
        return kind.from_pretrained(directory, complete=True)
    except MissingWeightsError as error:
        saved_from = Wav2Vec2BertConfig.from_pretrained(directory).architectures or ["another class"]
        raise wanted.error(
            f"has no weights for {enumerate_names(error.names, limit=4)}; it was saved from "
            f"{', '.join(saved_from)}; the task {wanted.task.name} needs {kind.__name__}."
        ) from error


def _unfit_features(extractor: SeamlessM4TFeatureExtractor, model: Wav2Vec2BertPreTrainedModel) -> str | None:
    """Why the pipeline, or the model itself, cannot take the features of a checkpoint."""
    if extractor.sampling_rate != SAMPLE_RATE:
        return (
            f"its features are those of audio at {extractor.sampling_rate:,} Hz (preprocessor_config.json), "
            f"and every clip is decoded to {SAMPLE_RATE:,} Hz."
        )
    width = extractor.num_mel_bins * extractor.stride
    if width != model.config.feature_projection_input_dim:
        return f"its features are {width} wide, its model takes {model.config.feature_projection_input_dim}."
    return None


def _head_of(
    model: Wav2Vec2BertPreTrainedModel, named: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Of a model's tensors those outside the encoder; of a bare encoder none."""
    if model.base_model is model:
        return {}
    prefix = f"{model.base_model_prefix}."
    return {name: tensor for name, tensor in named.items() if not name.startswith(prefix)}


def _without_encoder(checkpoint: CheckpointFiles, model: Wav2Vec2BertPreTrainedModel) -> Files:
    head = _head_of(model, model.state_dict())
    files = {name: data for name, data in checkpoint.files.items() if name.endswith(".json")}
    files = {name: data for name, data in files.items() if not name.endswith(".index.json")}
    return {**files, "model.safetensors": np.frombuffer(save(head), np.uint8)}


def _read(uri: str, storage: Storage) -> npt.NDArray[np.uint8]:
    if is_remote(uri):
        return np.frombuffer(storage.read_bytes(uri), np.uint8)
    path = Path(path_of(uri))
    # Mapped: the driver needs no memory for weights that it only hands on.
    return np.asarray(np.memmap(path, np.uint8, mode="r")) if path.stat().st_size else np.empty(0, np.uint8)


def _place(name: str, flag: str, storage: Storage) -> str:
    if is_remote(name) or os.path.isdir(os.path.expanduser(name)):
        return storage.normalise(name)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download

        try:
            return str(snapshot_download(name, allow_patterns=[f"*{ending}" for ending in _NEEDED]))
        except Exception as problem:
            raise JobError(
                f"{flag} {name}: neither a directory here nor to be had from the Hugging Face hub "
                f"({type(problem).__name__}). Give a checkpoint's directory, or download it where the hub "
                "can be reached."
            ) from problem
    if storage.is_file(name):
        raise JobError(f"{flag} {name} is a file; name the checkpoint's directory.")
    raise JobError(f"{flag} {name}: no such directory.")
