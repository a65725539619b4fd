"""Wav2Vec2BertForXVector: one vector per clip that tells speakers apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.encoder.adapter import ClipTooShortError
from w2vbert.heads.losses import AMSoftmaxLoss
from w2vbert.heads.moments import Moments
from w2vbert.heads.task import TaskModel
from w2vbert.model import Encoding
from w2vbert.outputs import XVectorOutput
from w2vbert.packing import Packed
from w2vbert.pretrained.published import without_nones


class TDNNLayer(nn.Module):
    """One layer of a time-delay network: a dilated convolution without padding, then ReLU.

    Source: Snyder et al. 2018, "X-vectors: robust DNN embeddings for speaker recognition". The weight is
    stored as that of a linear layer over the concatenated frames of the window, as published.
    """

    def __init__(self, in_dim: int, out_dim: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.kernel = nn.Linear(in_dim * kernel_size, out_dim)

    @property
    def context(self) -> int:
        """Frames that the output is shorter than the input."""
        return self.dilation * (self.kernel_size - 1)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(frames, in_dim) to (frames - context, out_dim)."""
        out_dim = self.kernel.out_features
        weight = self.kernel.weight.view(out_dim, self.kernel_size, -1).transpose(1, 2)
        convolved = F.conv1d(hidden_states.T[None], weight, self.kernel.bias, dilation=self.dilation)
        return convolved[0].T.relu()


@dataclass(frozen=True)
class XVector:
    """What the head says of a clip.

    Attributes:
        logits: (xvector_output_dim,), input of the AM-softmax.
        embedding: (xvector_output_dim,), for comparing speakers.
    """

    logits: Tensor
    embedding: Tensor


class Wav2Vec2BertForXVector(TaskModel):
    """The encoder with a time-delay network, mean and deviation over time, and two linear layers.

    A clip's vector needs `minimum_frames` frames, since the deviation needs two outputs of the network.
    """

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        config = Wav2Vec2BertConfig.of(config)
        super().__init__(config, weighted_layer_sum=config.use_weighted_layer_sum)
        widths = (config.tdnn_dim[0], *config.tdnn_dim)
        self.projector = nn.Linear(self.frame_size, widths[0])
        self.tdnn = nn.ModuleList(
            TDNNLayer(in_dim, out_dim, kernel_size, dilation)
            for in_dim, out_dim, kernel_size, dilation in zip(
                widths[:-1], widths[1:], config.tdnn_kernel, config.tdnn_dilation, strict=True
            )
        )
        self.feature_extractor = nn.Linear(2 * widths[-1], config.xvector_output_dim)
        self.classifier = nn.Linear(config.xvector_output_dim, config.xvector_output_dim)
        self.objective = AMSoftmaxLoss(config.xvector_output_dim, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, AMSoftmaxLoss):
            nn.init.normal_(module.weight)

    @property
    def context(self) -> int:
        """Frames that the output of the time-delay network is shorter than its input."""
        return sum(layer.context for layer in self._layers)

    @property
    def minimum_frames(self) -> int:
        """Frames of the shortest clip that has a vector."""
        return self.context + 2

    @property
    def _layers(self) -> Sequence[TDNNLayer]:
        return self.tdnn  # type: ignore[return-value]

    def project(self, encoding: Encoding) -> Packed:
        """What the time-delay network reads: (total_frames, tdnn_dim[0])."""
        frames = self._frames(encoding)
        return frames.with_frames(self.projector(frames.frames))

    def pooling(self) -> StatisticsPooling:
        """An accumulator for the projected frames of one clip, in pieces of any length."""
        return StatisticsPooling(self)

    def delay(self, frames: Tensor) -> Tensor:
        """The time-delay network on successive frames: (n, tdnn_dim[0]) to (n - context, tdnn_dim[-1])."""
        for layer in self._layers:
            frames = layer(frames)
        return frames

    def embed(self, statistics: Tensor) -> XVector:
        """Means and deviations, (..., 2 * tdnn_dim[-1]), to embeddings and logits."""
        embedding = self.feature_extractor(statistics)
        return XVector(logits=self.classifier(embedding), embedding=embedding)

    @without_nones
    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> XVectorOutput | tuple[Tensor, ...]:
        """Embeddings and logits of each clip of a padded batch, and the AM-softmax loss if labels are given.

        Args:
            input_features: (batch, frames, feature_projection_input_dim).
            attention_mask: (batch, frames), not zero on the frames of a clip; no padding when omitted.
            labels: (batch,) speaker indices.
            mask_time_indices: (batch, frames), frames to replace by the learned mask vector.
            output_attentions, output_hidden_states, return_dict: as published; as configured when omitted.

        Returns:
            `XVectorOutput` with logits and embeddings (batch, xvector_output_dim), or its tuple.

        Raises:
            ClipTooShortError: a clip has fewer than `minimum_frames` frames.
        """
        encoding, states = self._encode(
            input_features, attention_mask, mask_time_indices, output_attentions, output_hidden_states
        )
        projected = self.project(encoding)
        for row, length in enumerate(projected.lengths):
            self._require(length, f"clip {row} of the batch")
        # The clips run through the network as one sequence; windows that span two clips are left out below.
        delayed = self.delay(projected.frames)
        clips = [
            delayed[start : start + length - self.context]
            for start, length in zip(projected.offsets, projected.lengths, strict=False)
        ]
        statistics = torch.stack([torch.cat((clip.mean(dim=0), clip.std(dim=0))) for clip in clips])
        xvector = self.embed(statistics)
        loss = None if labels is None else self.objective(xvector.logits, labels)
        output = XVectorOutput(loss=loss, logits=xvector.logits, embeddings=xvector.embedding, **states)
        return output if self._wants_dict(return_dict) else output.to_tuple()

    def _require(self, frames: int, what: str) -> None:
        if frames < self.minimum_frames:
            raise ClipTooShortError(
                f"{what} has {frames} frames, but an x-vector needs {self.minimum_frames}: the time-delay "
                f"network looks at {self.context + 1} at once, and a deviation takes two of its outputs"
            )


class StatisticsPooling:
    """Mean and deviation over the frames of a clip after the time-delay network, then the linear layers.

    It holds the last `context` frames and two sums, whatever the clip's length.
    """

    def __init__(self, model: Wav2Vec2BertForXVector) -> None:
        self._model = model
        self._frames = 0
        self._tail: Tensor | None = None
        self._moments = Moments()

    def add(self, frames: Tensor) -> None:
        """Take the next projected frames: (n, tdnn_dim[0])."""
        context = self._model.context
        self._frames += len(frames)
        window = frames if self._tail is None else torch.cat((self._tail, frames))
        if len(window) > context:
            self._moments.add(self._model.delay(window))
        # A copy, so that the window it is cut from can be freed.
        self._tail = window[max(len(window) - context, 0) :].clone()

    def finish(self) -> XVector:
        """Logits and embedding of the clip.

        Raises:
            ClipTooShortError: fewer than `minimum_frames` frames were added.
        """
        self._model._require(self._frames, "the clip")
        statistics = torch.cat((self._moments.mean, self._moments.deviation()))
        return self._model.embed(statistics.to(self._model.dtype))
