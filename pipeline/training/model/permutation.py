"""Which output is which speaker: the numbers of speakers mean nothing, so the order that costs least counts.

Permutation-invariant training, Fujita et al. 2019, "End-to-End Neural Speaker Diarization with
Permutation-Free Objectives" (arXiv:1909.05952).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from w2vbert.packing import Packed


def in_best_order(logits: Packed, speakers: Sequence[Tensor]) -> Tensor:
    """Each clip's speakers in the order of outputs that has the least binary cross-entropy.

    The cross-entropy of output o against speaker s is the sum over frames of softplus(x_o) - x_o y_s, and
    only the second part depends on who is where: the best order is an assignment in a small matrix.

    Args:
        logits: (total_frames, outputs).
        speakers: of each clip (frames, speakers), one where a speaker speaks, else zero. Outputs without a
            speaker are to be silent.

    Returns:
        (total_frames, outputs) float32 targets, on the device of the logits.

    Raises:
        ValueError: a clip has more speakers than there are outputs, or another number of frames.
    """
    outputs = logits.frames.shape[1]
    for clip, (active, length) in enumerate(zip(speakers, logits.lengths, strict=True)):
        if active.dim() != 2 or len(active) != length or active.shape[1] > outputs:
            raise ValueError(
                f"speakers of clip {clip} must have shape ({length} frames, at most {outputs} speakers), "
                f"have {tuple(active.shape)}"
            )
    padded = [F.pad(active.float(), (0, outputs - active.shape[1])) for active in speakers]
    targets = logits.with_frames(torch.cat(padded).to(logits.frames.device))
    predicted = logits.with_frames(logits.frames.detach().float())
    with torch.autocast(targets.frames.device.type, enabled=False):
        pairs = zip(predicted.split(), targets.split(), strict=True)
        gains = torch.stack([clip.T @ active for clip, active in pairs])
    # What is not finite is for the caller to find: any order will do.
    orders = [linear_sum_assignment(gain, maximize=True)[1] for gain in gains.nan_to_num().cpu().numpy()]
    of_frames = np.repeat(np.stack(orders), logits.lengths, axis=0)
    return targets.frames.gather(1, torch.from_numpy(of_frames).to(targets.frames.device))
