"""From a checkpoint or a configuration to what is trained."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import JobError
from pipeline.training.model.learner import Learner
from pipeline.training.model.masked import MaskedPrediction, SpanMasks
from pipeline.training.model.multitask import MultiTask
from pipeline.training.model.objectives import OBJECTIVES
from w2vbert.config import CONFIG_NAME, ConfigError, Wav2Vec2BertConfig
from w2vbert.features.quantizer import RandomProjectionQuantizer
from w2vbert.fields import enumerate_names
from w2vbert.heads import Wav2Vec2BertForSequenceClassification, Wav2Vec2BertForXVector
from w2vbert.heads.task import TaskModel
from w2vbert.model import Wav2Vec2BertModel
from w2vbert.pretrained.hub import Source, read_json
from w2vbert.pretrained.loading import NoDrawsWithoutMemory, Target, load_weights
from w2vbert.pretrained.weights import CheckpointError, StoredTensor, open_weights

# A checkpoint's directory, or a configuration: its JSON file, or what is in it.
Start = str | Path | Mapping[str, Any]

# What the tasks of a run may differ in: nothing that changes what the encoder computes.
_OF_HEADS = {
    *("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "final_dropout"),
    *("num_labels", "id2label", "label2id", "use_weighted_layer_sum", "classifier_proj_size"),
    *("tdnn_dim", "tdnn_kernel", "tdnn_dilation", "xvector_output_dim"),
}
# What a checkpoint's encoder may lack: parts that its author did without.
_ADDED = ("adapter.", "intermediate_ffn.", "masked_spec_embed")


@dataclass(frozen=True)
class Built:
    """What is trained: float32 weights on the CPU, in training mode.

    Attributes:
        new: names of the parameters that start at random while the encoder does not; none where it does.
    """

    learner: Learner
    new: frozenset[str]


def build(
    start: Start,
    heads: Mapping[str, Mapping[str, Any]],
    overrides: Mapping[str, Any],
    *,
    new_heads: bool = False,
    crop_frames: tuple[int, int] | None = None,
) -> Built:
    """An encoder with a head for each task. New weights are drawn from torch's default generator.

    Of the checkpoint's head every tensor of the right size is kept: of an x-vector model all but the classes.

    Args:
        heads: by task, fields of the configuration for its head, such as `vocab_size` or `id2label`.
        overrides: fields of the configuration that win over those of `start`.
        new_heads: keep nothing of the checkpoint's head.
        crop_frames: see `MultiTask`.

    Raises:
        JobError: a field does not exist or cannot have its value, or the checkpoint cannot be used.
    """
    with _as_job_errors(start):
        config = _config(start, overrides)
        stored = _stored(start)
        encoder, new = _encoder(start, config, stored)
        models = {}
        for task, given in heads.items():
            kind = OBJECTIVES[task].model
            model = models[task] = kind.with_backbone(_of_task(task, config, given), encoder)
            if isinstance(model, Wav2Vec2BertForXVector):
                _let_signals_through(model)
            kept = not new_heads and kind.__name__ in (config.architectures or ())
            new |= {
                f"tasks.{task}.{name}" for name in _fill_head(model, stored if kept else {}, config.id2label)
            }
    learner = MultiTask(models, crop_frames=crop_frames)
    return Built(learner.train(), frozenset(new) if stored else frozenset())


def build_masked(start: Start, overrides: Mapping[str, Any], masks: SpanMasks, **codebooks: int) -> Built:
    """An encoder for masked prediction.

    The published configuration keeps its own masks, which are those of fine-tuning. With a probability of
    zero the layout has no vector for masked frames: then it gets the published one.

    Args:
        codebooks: of the quantizer: `codebook_size`, `codebook_dim`, `num_codebooks`, `seed`.

    Raises:
        JobError: as `build`, or the model has an adapter.
    """
    with _as_job_errors(start):
        config = _config(start, overrides)
        if config.add_adapter:
            raise JobError(
                "masked prediction is about frames of the encoder, and the adapter has fewer: give "
                "--set add_adapter=false"
            )
        config.apply_spec_augment = True
        if config.mask_time_prob == 0.0:
            config.mask_time_prob = Wav2Vec2BertConfig.mask_time_prob
        stored = _stored(start)
        encoder, new = _encoder(start, config, stored)
        quantizer = RandomProjectionQuantizer(config.feature_projection_input_dim, **codebooks)
    learner = MaskedPrediction(encoder, quantizer, masks)
    new |= {f"predictor.{name}" for name, _ in learner.predictor.named_parameters()}
    return Built(learner.train(), frozenset(new) if stored else frozenset())


@contextmanager
def _as_job_errors(start: Start) -> Iterator[None]:
    try:
        yield
    except (ConfigError, CheckpointError, OSError) as error:
        place = "the model's configuration" if isinstance(start, Mapping) else start
        raise JobError(f"{place}: {error}") from error


def _is_config(start: Start) -> bool:
    return isinstance(start, Mapping) or Path(start).is_file()


def config_of(start: Start, overrides: Mapping[str, Any]) -> Wav2Vec2BertConfig:
    """The configuration that training starts with.

    Raises:
        JobError: see `build`.
    """
    with _as_job_errors(start):
        return _config(start, overrides)


def _config(start: Start, overrides: Mapping[str, Any]) -> Wav2Vec2BertConfig:
    known = [field.name for field in fields(Wav2Vec2BertConfig)] + ["num_labels"]
    for name in overrides:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise JobError(f"--set {name}: the model's configuration has no such field{hint}")
    if isinstance(start, Mapping):
        content = start
    else:
        content = read_json(Path(start) if _is_config(start) else _source(start).file(CONFIG_NAME))
    return Wav2Vec2BertConfig.from_dict(_replaced(content, overrides))


def _of_task(task: str, config: Wav2Vec2BertConfig, given: Mapping[str, Any]) -> Wav2Vec2BertConfig:
    if foreign := given.keys() - _OF_HEADS:
        raise JobError(
            f"{task}: the tasks of a run share one encoder, so its head alone cannot have its own "
            f"{enumerate_names(list(foreign))}"
        )
    return Wav2Vec2BertConfig.from_dict(_replaced(config.to_dict(), {**OBJECTIVES[task].fields, **given}))


def _replaced(content: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The names of labels go with their number."""
    labels = {"num_labels", "id2label", "label2id"}
    stale = labels if labels & given.keys() else set()
    return {**{name: value for name, value in content.items() if name not in stale}, **given}


def _source(start: Start) -> Source:
    return Source.take(str(start), {})


def _stored(start: Start) -> Mapping[str, StoredTensor]:
    return {} if _is_config(start) else open_weights(_source(start).find)


def _encoder(
    start: Start, config: Wav2Vec2BertConfig, stored: Mapping[str, StoredTensor]
) -> tuple[Wav2Vec2BertModel, set[str]]:
    """The encoder, and which of its parameters the checkpoint lacks."""
    if not stored:
        return Wav2Vec2BertModel(config), set()
    prefix = f"{Wav2Vec2BertModel.base_model_prefix}."
    with torch.device("meta"), NoDrawsWithoutMemory():
        encoder = Wav2Vec2BertModel(config)
    encoder.name_or_path = str(start)
    of_encoder = {name: tensor for name, tensor in stored.items() if name.startswith(prefix)} or stored
    missing = load_weights(encoder, of_encoder, Target(torch.device("cpu"), torch.float32)).missing
    if absent := [name for name in missing if not name.startswith(_ADDED)]:
        raise CheckpointError(f"has no weights for {enumerate_names(absent, limit=4)}")
    return encoder, {f"encoder.{name}" for name in missing}


def _fill_head(
    model: TaskModel, stored: Mapping[str, StoredTensor], labels: Mapping[int, str] | None
) -> set[str]:
    """Takes what is stored of the head in the right size, but classes of other names; the names of all else.

    Args:
        labels: of the checkpoint.
    """
    prefix = f"{model.base_model_prefix}."
    head = {name: p for name, p in model.named_parameters() if not name.startswith(prefix)}
    fitting = {name for name in head.keys() & stored.keys() if stored[name].shape == tuple(head[name].shape)}
    if isinstance(model, Wav2Vec2BertForXVector):  # no checkpoint says whose voices its classes are
        fitting -= {name for name in fitting if name.startswith("objective.")}
    elif isinstance(model, Wav2Vec2BertForSequenceClassification) and model.config.id2label != labels:
        fitting -= {name for name in fitting if name.startswith("classifier.")}
    model.load_state_dict({name: stored[name].read() for name in fitting}, strict=False)
    return head.keys() - fitting


def _let_signals_through(model: Wav2Vec2BertForXVector) -> None:
    """Kaiming initialisation (He et al. 2015, arXiv:1502.01852): the published scheme suits a head of
    published width alone; through the seven layers of a narrow one all but nothing comes."""
    for part in model.children():
        for module in () if part is model.wav2vec2_bert else part.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)
