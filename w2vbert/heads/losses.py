"""Losses of the task models. All are computed in fp32, whatever the precision of the logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from w2vbert.config import ProblemType
from w2vbert.packing import Packed

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


def clip_loss(logits: Tensor, labels: Tensor, problem_type: ProblemType | None) -> Tensor:
    """Loss of one prediction per clip.

    Args:
        logits: (batch, num_labels).
        labels: regression: (batch,) or (batch, num_labels) numbers; single-label: (batch,) indices,
            `IGNORE` for clips to leave out; multi-label: (batch, num_labels) zeros and ones.
        problem_type: "regression" (mean square error), "single_label_classification" (cross-entropy) or
            "multi_label_classification" (binary cross-entropy). `None`: regression for one label, multi-label
            for floating-point labels, else single-label.

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
        return F.cross_entropy(logits, labels.view(-1).long(), ignore_index=IGNORE)
    labels = labels.view_as(logits).float()
    if problem_type == "regression":
        return F.mse_loss(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels)


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
    clips = zip(labels.to(logits.frames.device), logits.lengths, strict=True)
    targets = torch.cat([clip[:length] for clip, length in clips])
    counted = (targets != IGNORE).all(dim=-1)
    targets, predictions = targets[counted], logits.frames[counted].float()
    if problem_type == "single_label_classification":
        total = F.cross_entropy(predictions, targets.argmax(dim=-1), reduction="sum")
        return total / max(len(targets), 1)
    total = F.binary_cross_entropy_with_logits(predictions, targets.float(), reduction="sum")
    return total / max(targets.numel(), 1)


class AMSoftmaxLoss(nn.Module):
    """Cross-entropy over cosines, those of the right classes reduced by a margin.

    Source: Wang et al. 2018, "Additive Margin Softmax for Face Verification" (arXiv:1801.05599).

    Args:
        input_dim: width of the vectors.
        num_labels: classes (speakers).
        scale: what cosines are multiplied with before the softmax.
        margin: what is taken from the cosine of the right class.
    """

    def __init__(self, input_dim: int, num_labels: int, scale: float = 30.0, margin: float = 0.4) -> None:
        super().__init__()
        self.scale = scale
        self.margin = margin
        self.weight = nn.Parameter(torch.empty(input_dim, num_labels))

    def forward(self, hidden_states: Tensor, labels: Tensor) -> Tensor:
        """The mean loss.

        Args:
            hidden_states: (batch, input_dim).
            labels: (batch,) class indices.

        Raises:
            ValueError: labels of another shape, or outside the classes.
        """
        num_labels = self.weight.shape[1]
        labels = labels.to(hidden_states.device).flatten()
        if len(labels) != len(hidden_states) or not ((labels >= 0) & (labels < num_labels)).all():
            raise ValueError(
                f"labels must be {len(hidden_states)} indices below {num_labels}, are {labels.tolist()}"
            )
        cosines = F.normalize(hidden_states.float(), dim=1) @ F.normalize(self.weight.float(), dim=0)
        margins = self.margin * F.one_hot(labels, num_labels)
        return F.cross_entropy(self.scale * (cosines - margins), labels)
