"""From checkpoints and options to heads, and to the columns that they fill."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import torch

from pipeline.annotate.checkpoints import CheckpointFiles, feature_extractor, load_models
from pipeline.spec import DiarizationOptions, JobSpec, LabelOptions, Task, TranscriptOptions, options
from pipeline.table import schema
from pipeline.tasks.base import Head
from pipeline.tasks.classify import LabelHead
from pipeline.tasks.decoding.decoder import Decoder
from pipeline.tasks.decoding.files import DecodingFiles
from pipeline.tasks.diarize import DiarizationHead
from pipeline.tasks.embed import EmbeddingHead
from pipeline.tasks.transcribe import TranscriptHead
from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.heads import (
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2BertForXVector,
)
from w2vbert.processor import Wav2Vec2BertProcessor


def build_heads(
    checkpoints: Mapping[Task, CheckpointFiles],
    spec: JobSpec,
    decoding: DecodingFiles,
    device: torch.device,
) -> dict[Task, Head]:
    """The heads of one backbone."""
    models = load_models(checkpoints, getattr(torch, spec.dtype), device)
    heads: dict[Task, Head] = {}
    for task, model in models.items():
        match model:
            case Wav2Vec2BertForCTC():
                processor = Wav2Vec2BertProcessor.from_pretrained(checkpoints[task].settings())
                decoder = Decoder(options(spec, TranscriptOptions), decoding, processor.tokenizer, device)
                heads[task] = TranscriptHead(model, processor, decoder)
            case Wav2Vec2BertForSequenceClassification():
                heads[task] = LabelHead(model, options(spec, LabelOptions))
            case Wav2Vec2BertForXVector():
                heads[task] = EmbeddingHead(model)
            case Wav2Vec2BertForAudioFrameClassification():
                frame_s = feature_extractor(checkpoints[task].settings()).frame_s
                heads[task] = DiarizationHead(model, options(spec, DiarizationOptions), frame_s)
    return heads


def columns_of(spec: JobSpec, configs: Mapping[Task, Wav2Vec2BertConfig]) -> dict[str, pa.DataType]:
    """The annotation columns that checkpoints of these configurations fill."""
    columns: dict[str, pa.DataType] = {}
    for task in Task:  # in this order, whatever the flags'
        if task not in configs:
            continue
        match task:
            case Task.TRANSCRIBE:
                transcript = options(spec, TranscriptOptions)
                columns |= schema.TRANSCRIPT_COLUMNS
                columns |= schema.NBEST_COLUMNS if transcript.nbest > 1 else {}
                columns |= schema.ALIGNMENT_COLUMNS if transcript.align else {}
            case Task.CLASSIFY:
                columns |= schema.LABEL_COLUMNS
            case Task.DIARIZE:
                columns |= schema.DIARIZATION_COLUMNS
                if options(spec, DiarizationOptions).frame_probabilities:
                    columns |= schema.PROBABILITY_COLUMNS
            case Task.EMBED:
                columns |= schema.embedding_columns(configs[task].xvector_output_dim)
    return columns
