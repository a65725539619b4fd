"""The checkpoints of a job: read once by the driver, handed to the actors of every node.

Checkpoints whose encoders are the same share one: they form a `Backbone`, of which only the first brings the
encoder's weights along.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save

from pipeline.annotate.node_files import Files, digest_of, directory_of
from pipeline.errors import JobError
from pipeline.spec import JobSpec, Task
from pipeline.storage import Storage, is_remote, path_of
from pipeline.tasks.diarization.binarise import MAX_SPEAKERS
from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor
from w2vbert.heads import (
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2BertForXVector,
)
from w2vbert.heads.task import TaskModel
from w2vbert.pretrained.hub import CheckpointNotFoundError
from w2vbert.pretrained.model import backbone_digest
from w2vbert.pretrained.weights import CheckpointError, enumerate_names
from w2vbert.processor import Wav2Vec2BertProcessor

_NEEDED = (".json", ".safetensors", ".bin")
_Features = tuple[int, int, int, float]
MODEL_CLASSES: Mapping[Task, type[TaskModel]] = {
    Task.TRANSCRIBE: Wav2Vec2BertForCTC,
    Task.CLASSIFY: Wav2Vec2BertForSequenceClassification,
    Task.DIARIZE: Wav2Vec2BertForAudioFrameClassification,
    Task.EMBED: Wav2Vec2BertForXVector,
}


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of a checkpoint."""

    name: str
    digest: str
    files: Files

    def directory(self) -> Path:
        """The files in a directory of this node. A job's is a copy, so that whoever replaces the checkpoint
        does not pull the weights from under it."""
        return directory_of(self.files, self.digest)

    def settings(self) -> Path:
        """Configuration, features and vocabulary, without the weights, in a directory of this node."""
        files = {name: data for name, data in self.files.items() if name.endswith(".json")}
        return directory_of(files, digest_of(files))

    @property
    def config(self) -> Wav2Vec2BertConfig:
        return Wav2Vec2BertConfig.from_pretrained(self.settings())


@dataclass(frozen=True)
class Backbone:
    """Checkpoints that one pass of one encoder serves.

    Attributes:
        digest: of the encoder.
        checkpoints: by task; the first holds the encoder and its head, the others only their heads.
        parameters: of the encoder and all heads.
    """

    digest: str
    checkpoints: dict[Task, CheckpointFiles]
    parameters: int


@dataclass(frozen=True)
class _Opened:
    """A checkpoint as the driver looks at it: the model with its weights only mapped."""

    files: CheckpointFiles
    model: TaskModel
    features: _Features
    backbone_digest: str


def read_backbones(spec: JobSpec, storage: Storage) -> list[Backbone]:
    """Reads every checkpoint of the job, and finds out which share an encoder.

    Raises:
        JobError: a checkpoint does not exist, is damaged, is none of Wav2Vec2-BERT, lacks the head for its
            task, or takes other features than the first one.
    """
    wanted = [
        (f"--{'model' if 'model' in type(spec).model_fields else task}", name, task)
        for task, name in spec.models.items()
    ]
    with ThreadPoolExecutor() as pool:  # two digests of gigabytes each
        opened = [made.result() for made in [pool.submit(_open, *one, storage) for one in wanted]]
    found: dict[str, Backbone] = {}
    first = opened[0]
    for checkpoint, (flag, name, task) in zip(opened, wanted, strict=True):
        if checkpoint.features != first.features:
            raise JobError(
                f"{flag} {name}: its features are computed otherwise than those of {first.files.name} "
                "(preprocessor_config.json); annotate with them in runs of their own."
            )
        model, digest = checkpoint.model, checkpoint.backbone_digest
        head = sum(p.numel() for key, p in model.named_parameters() if not _in_encoder(key))
        if known := found.get(digest):
            files = _without_encoder(checkpoint.files, model)
            slim = CheckpointFiles(name, digest_of(files), files)
            checkpoints = {**known.checkpoints, task: slim}
            found[digest] = Backbone(digest, checkpoints, known.parameters + head)
        else:
            found[digest] = Backbone(digest, {task: checkpoint.files}, model.num_parameters())
    return list(found.values())


def read_checkpoint(name: str, storage: Storage, flag: str = "--model") -> CheckpointFiles:
    """Reads the files of a local directory, an s3:// one, or a hub id.

    Raises:
        JobError: it does not exist, or is no checkpoint.
    """
    return _read_checkpoint(_place(name, flag, storage), name, flag, storage)


def _read_checkpoint(place: str, name: str, flag: str, storage: Storage) -> CheckpointFiles:
    try:
        paths = [path for path in storage.list_files(place) if path.endswith(_NEEDED)]
        files = {path.rsplit("/", 1)[-1]: _read(path, storage) for path in paths}
    except OSError as problem:  # of storage, or of a local file that is mapped
        raise JobError(f"{flag} {storage.explain(name, problem)}.") from problem
    if "config.json" not in files:
        raise JobError(f"{flag} {name}: no config.json there; a checkpoint directory holds one.")
    if not any(file.endswith((".safetensors", ".bin")) for file in files):
        raise JobError(f"{flag} {name}: no weights there (model.safetensors or pytorch_model.bin).")
    if any(file.endswith(".safetensors") for file in files):
        files = {file: data for file, data in files.items() if not file.endswith(".bin")}
    return CheckpointFiles(name, digest_of(files), files)


def load_models(
    checkpoints: Mapping[Task, CheckpointFiles], dtype: torch.dtype, device: torch.device
) -> dict[Task, TaskModel]:
    """The task models of a backbone; all of them hold the encoder of the first."""
    models: dict[Task, TaskModel] = {}
    encoder = None
    for task, checkpoint in checkpoints.items():
        model = MODEL_CLASSES[task].from_pretrained(
            checkpoint.directory(), dtype=dtype, device=device, backbone=encoder
        )
        encoder = encoder or model.wav2vec2_bert
        models[task] = model
    return models


def feature_extractor(directory: Path) -> SeamlessM4TFeatureExtractor:
    """The extractor of a checkpoint; the published one where only the model was saved."""
    try:
        return SeamlessM4TFeatureExtractor.from_pretrained(directory)
    except CheckpointNotFoundError:
        return SeamlessM4TFeatureExtractor()


def _open(flag: str, name: str, task: Task, storage: Storage) -> _Opened:
    """A damaged or unfit checkpoint stops the job here, and not its actors."""
    place = _place(name, flag, storage)
    checkpoint = _read_checkpoint(place, name, flag, storage)
    if task is Task.TRANSCRIBE and "vocab.json" not in checkpoint.files:
        raise JobError(
            f"{flag} {name}: no vocab.json there; transcribing needs a CTC checkpoint's vocabulary."
        )
    directory = checkpoint.directory() if is_remote(place) else Path(place)
    wanted = MODEL_CLASSES[task]
    try:
        if task is Task.TRANSCRIBE:
            Wav2Vec2BertProcessor.from_pretrained(directory)
        extractor = feature_extractor(directory)
        loaded: Any = wanted.from_pretrained(directory, output_loading_info=True)
    except (ValueError, OSError, CheckpointError) as problem:
        said = str(problem).replace(str(directory), checkpoint.name)
        raise JobError(f"{flag} {checkpoint.name}: cannot be read: {said}") from problem
    model: TaskModel = loaded[0]
    info: dict[str, Any] = loaded[1]
    # The vector that stands for masked frames, and the weights of the loss, are for training alone.
    missing = [
        name
        for name in info["missing_keys"]
        if not name.startswith("objective.") and not name.endswith("masked_spec_embed")
    ]
    if missing:
        kinds = ", ".join(model.config.architectures or []) or "another class"
        raise JobError(
            f"{flag} {checkpoint.name}: has no weights for {enumerate_names(missing, limit=4)}; it was saved "
            f"from {kinds}, and to {task} needs {wanted.__name__}."
        )
    if task is Task.DIARIZE and model.config.num_labels > MAX_SPEAKERS:
        raise JobError(
            f"{flag} {checkpoint.name}: tells {model.config.num_labels} speakers apart, the table has room "
            f"for {MAX_SPEAKERS}."
        )
    width = extractor.num_mel_bins * extractor.stride
    if width != model.config.feature_projection_input_dim:
        raise JobError(
            f"{flag} {checkpoint.name}: its features are {width} wide, its model takes "
            f"{model.config.feature_projection_input_dim}."
        )
    features = (extractor.num_mel_bins, extractor.stride, extractor.sampling_rate, extractor.padding_value)
    return _Opened(checkpoint, model, features, backbone_digest(model))


def _in_encoder(name: str) -> bool:
    return name.startswith("wav2vec2_bert.")


def _without_encoder(checkpoint: CheckpointFiles, model: TaskModel) -> Files:
    head = {name: tensor for name, tensor in model.state_dict().items() if not _in_encoder(name)}
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
    if is_remote(name) or Path(name).expanduser().is_dir():
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
    raise JobError(f"{flag} {name}: no such directory.")
