"""Losses of the task models. All are computed in fp32, whatever the precision of the logits."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from w2vbert.config import ProblemType
from w2vbert.packing import Packed

Reduction = Literal["mean", "none"]

IGNORE = -100
"""Label of what no loss counts: padding, or a frame or clip without annotation."""


def ctc_loss(logits: Packed, labels: Tensor, *, blank: int, reduction: str, zero_infinity: bool) -> Tensor:
    """Connectionist temporal classification (Graves et al. 2006).

    Args:
        logits: (total_frames, vocab_size).
        labels: (batch, target_length) token ids; `IGNORE` and the blank, which no target has, are skipped.
        blank: token id of the blank.
        reduction: "sum", "mean" (each clip's loss divided by its target length, then the mean over clips) or
            "none" (batch,).
        zero_infinity: a clip too short for its target counts zero instead of infinity.

    Raises:
        ValueError: a label outside the vocabulary, or another number of rows than clips.
    """
    vocab_size = logits.frames.shape[-1]
    labels = labels.to(logits.frames.device)
    if labels.dim() != 2 or len(labels) != len(logits.lengths):
        raise ValueError(
            f"labels must have shape (batch, target_length), batch = {len(logits.lengths)}, "
            f"have {tuple(labels.shape)}"
        )
    stray = labels[((labels < 0) & (labels != IGNORE)) | (labels >= vocab_size)]
    if stray.numel():
        raise ValueError(
            f"labels hold token {int(stray[0])}; tokens are 0 to {vocab_size - 1} (vocab_size {vocab_size}), "
            f"and {IGNORE} is padding"
        )
    counted = (labels != IGNORE) & (labels != blank)
    log_probs = logits.with_frames(logits.frames.log_softmax(dim=-1, dtype=torch.float32))
    # cuDNN's CTC accepts fewer inputs and is not deterministic.
    with torch.backends.cudnn.flags(enabled=False):
        return F.ctc_loss(
            log_probs.pad().transpose(0, 1),
            labels[counted],
            torch.tensor(logits.lengths, device=labels.device),
            counted.sum(-1),
            blank=blank,
            reduction=reduction,
            zero_infinity=zero_infinity,
        )


def clip_loss(
    logits: Tensor, labels: Tensor, problem_type: ProblemType | None, *, reduction: Reduction = "mean"
) -> Tensor:
    """Loss of one prediction per clip.

    Args:
        logits: (batch, num_labels).
        labels: regression: (batch,) or (batch, num_labels) numbers; single-label: (batch,) indices,
            `IGNORE` for clips to leave out; multi-label: (batch, num_labels) zeros and ones.
        problem_type: "regression" (mean square error), "single_label_classification" (cross-entropy) or
            "multi_label_classification" (binary cross-entropy). `None`: regression for one label, multi-label
            for floating-point labels, else single-label.
        reduction: "mean", or "none": (batch,), a clip's mean of several numbers, zero where it is left out.

    Raises:
        ValueError: labels of a shape that the problem does not have.
    """
    num_labels = logits.shape[-1]
    if problem_type is None:
        if num_labels == 1:
            problem_type = "regression"
        elif labels.is_floating_point():
            problem_type = "multi_label_classification"
        else:
            problem_type = "single_label_classification"
    expected = len(logits) if problem_type == "single_label_classification" else logits.numel()
    if labels.numel() != expected:
        raise ValueError(
            f"{problem_type} with {num_labels} labels takes {expected} numbers for {len(logits)} clips, "
            f"labels have shape {tuple(labels.shape)}"
        )
    logits, labels = logits.float(), labels.to(logits.device)
    if problem_type == "single_label_classification":
        return F.cross_entropy(logits, labels.view(-1).long(), ignore_index=IGNORE, reduction=reduction)
    labels = labels.view_as(logits).float()
    loss = F.mse_loss if problem_type == "regression" else F.binary_cross_entropy_with_logits
    losses = loss(logits, labels, reduction=reduction)
    return losses.mean(dim=1) if reduction == "none" else losses


def frame_loss(logits: Packed, labels: Tensor, problem_type: ProblemType | None) -> Tensor:
    """Loss of one prediction per frame, the mean over the frames of all clips. Padding does not count.

    Args:
        logits: (total_frames, num_labels).
        labels: (batch, frames, num_labels) zeros and ones, padded like the input; a frame that holds `IGNORE`
            does not count.
        problem_type: "single_label_classification": cross-entropy against the label that is one, the
            published loss. Else binary cross-entropy of every label by itself, as fits speakers who overlap
            (Fujita et al. 2019, arXiv:1909.05952).

    Raises:
        ValueError: labels of another shape.
    """
    batch, frames, num_labels = len(logits.lengths), max(logits.lengths), logits.frames.shape[-1]
    if labels.dim() != 3 or len(labels) != batch or labels.shape[1] < frames or labels.shape[2] != num_labels:
        raise ValueError(
            f"labels must have shape (batch, frames, num_labels) = {(batch, frames, num_labels)}, "
            f"have {tuple(labels.shape)}"
        )
    targets = labels.to(logits.frames.device)[logits.mask(length=labels.shape[1])]
    sums, counts = frame_losses(logits, targets, problem_type)
    return sums.sum() / counts.sum().clamp(min=1)


def frame_losses(logits: Packed, targets: Tensor, problem_type: ProblemType | None) -> tuple[Tensor, Tensor]:
    """As `frame_loss`, of each clip by itself.

    Args:
        targets: (total_frames, num_labels), packed like the logits.

    Returns:
        (batch,) float32, sums; (batch,) int64, how many numbers each is the sum of: the frames that count,
        times the labels where each label counts by itself.
    """
    counted, predictions = (targets != IGNORE).all(dim=-1), logits.frames.float()
    if problem_type == "single_label_classification":
        numbers, losses = 1, F.cross_entropy(predictions, targets.argmax(dim=-1), reduction="none")
    else:
        binary = F.binary_cross_entropy_with_logits(predictions, targets.float(), reduction="none")
        numbers, losses = targets.shape[1], binary.sum(dim=-1)
    # Summed row by row: adding up by index is in no fixed order on GPUs.
    sums = logits.with_frames(losses.where(counted, 0.0)).pad().sum(dim=1)
    return sums, numbers * logits.with_frames(counted).pad().sum(dim=1)


class AMSoftmaxLoss(nn.Module):
    """Cross-entropy over cosines, those of the right classes reduced by a margin.

    Source: Wang et al. 2018, "Additive Margin Softmax for Face Verification" (arXiv:1801.05599).

    Args:
        input_dim: width of the vectors.
        num_labels: classes (speakers).
        scale: what cosines are multiplied with before the softmax.
        margin: what is taken from the cosine of the right class, unless a call gives another.
    """

    def __init__(self, input_dim: int, num_labels: int, scale: float = 30.0, margin: float = 0.4) -> None:
        super().__init__()
        self.scale = scale
        self.margin = margin
        self.weight = nn.Parameter(torch.empty(input_dim, num_labels))

    def forward(
        self,
        hidden_states: Tensor,
        labels: Tensor,
        *,
        margin: float | None = None,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """The mean loss, or with "none" that of each vector: (batch,).

        Args:
            hidden_states: (batch, input_dim).
            labels: (batch,) class indices.
            margin: of this call.

        Raises:
            ValueError: labels of another shape, or outside the classes.
        """
        num_labels = self.weight.shape[1]
        labels = labels.to(hidden_states.device).flatten()
        if len(labels) != len(hidden_states) or not ((labels >= 0) & (labels < num_labels)).all():
            raise ValueError(
                f"labels must be {len(hidden_states)} indices below {num_labels}, are {labels.tolist()}"
            )
        with torch.autocast(hidden_states.device.type, enabled=False):  # it would round the cosines
            cosines = F.normalize(hidden_states.float(), dim=1) @ F.normalize(self.weight.float(), dim=0)
        margins = (self.margin if margin is None else margin) * F.one_hot(labels, num_labels)
        return F.cross_entropy(self.scale * (cosines - margins), labels, reduction=reduction)
