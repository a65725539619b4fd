"""Masked prediction: the encoder guesses the codes of frames that it does not hear.

BEST-RQ, Chiu et al. 2022 (arXiv:2202.01855); masks as wav2vec 2.0 and w2v-BERT have them: spans of frames
are replaced by a learned vector after the projection.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.training.batches.batch import Batch
from pipeline.training.model.learner import Learner, with_idle, without_target
from pipeline.training.model.losses import TaskLoss
from w2vbert.encoder.masking import span_mask
from w2vbert.features.quantizer import RandomProjectionQuantizer
from w2vbert.model import Draws, Encoding, Wav2Vec2BertModel
from w2vbert.packing import Packed

MASKED_PREDICTION = "masked-prediction"


@dataclass(frozen=True)
class SpanMasks:
    """Which frames to hide: see `w2vbert.encoder.masking.span_mask`. Frames of 20 ms."""

    probability: float = 0.65
    length: int = 10
    min_masks: int = 2


class MaskedPrediction(Learner):
    """An encoder with a linear layer over the entries of each codebook. The bare encoder is published.

    Args:
        encoder: without an adapter, with a vector for masked frames.
        quantizer: of frames as wide as the features of the encoder.
        masks: for evaluation too, which hears the same as training.
    """

    def __init__(
        self, encoder: Wav2Vec2BertModel, quantizer: RandomProjectionQuantizer, masks: SpanMasks
    ) -> None:
        super().__init__(encoder)
        self.quantizer = quantizer
        self.masks = masks
        width = encoder.config.hidden_size
        self.predictor = nn.Linear(width, quantizer.num_codebooks * quantizer.codebook_size)
        nn.init.normal_(self.predictor.weight, std=encoder.config.initializer_range)
        nn.init.zeros_(self.predictor.bias)

    @property
    def results(self) -> Mapping[str, Wav2Vec2BertModel]:
        return {MASKED_PREDICTION: self.encoder}

    def forward(
        self,
        batch: Batch,
        *,
        skipped_layers: Collection[int] | None = None,
        margin: float | None = None,
        mask_time_indices: Tensor | None = None,
        see: Callable[[Encoding], None] | None = None,
    ) -> dict[str, TaskLoss]:
        """Cross-entropy of the masked frames, the mean over codebooks.

        Facts: `correct`, the share of codebooks guessed right; `most_frequent`, the share guessed right by
        always saying the batch's most frequent code; `codes_used`, how many different codes the batch has.
        """
        features, skipped = self._features(batch), self._skipped(skipped_layers)
        generator = torch.Generator().manual_seed(batch.seed)
        if mask_time_indices is None:
            mask_time_indices = self._drawn(batch, generator)
        encoding = self.encoder.encode(
            features, mask_time_indices=mask_time_indices, draws=Draws(generator, skipped)
        )
        if see is not None:
            see(encoding)
        masked = features.with_frames(mask_time_indices.to(features.frames.device)[features.mask()])
        loss = self._loss(features, encoding.last_hidden_state, masked)
        return with_idle({MASKED_PREDICTION: loss}, self._idle(loss, skipped))

    def counts(self, batch: Batch) -> dict[str, float]:
        hidden = self._drawn(batch, torch.Generator().manual_seed(batch.seed))
        return {MASKED_PREDICTION: float(hidden.sum())}

    def _drawn(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """(clips, longest) bool: the frames to guess; none of a clip without features."""
        masks, lengths = self.masks, batch.features.lengths
        drawn = span_mask(
            lengths, masks.probability, masks.length, min_masks=masks.min_masks, generator=generator
        )
        return drawn & torch.tensor([name not in batch.unusable for name in batch.clip_ids])[:, None]

    def _loss(self, features: Packed, states: Packed, masked: Packed) -> TaskLoss:
        hidden = masked.frames
        codes = self.quantizer(features.frames[hidden])
        if not len(codes):
            return without_target(len(features.lengths), hidden.device)
        logits = self.predictor(states.frames[hidden]).float()
        logits = logits.view(*codes.shape, self.quantizer.codebook_size)
        losses = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none")
        losses = losses.view_as(codes).mean(dim=1)
        of_frames = losses.new_zeros(len(hidden)).masked_scatter(hidden, losses.detach())
        sums, counts = (masked.with_frames(numbers).pad().sum(dim=1) for numbers in (of_frames, hidden))
        return TaskLoss(losses.sum(), len(codes), sums / counts, self._facts(logits, codes))

    def _facts(self, logits: Tensor, codes: Tensor) -> dict[str, float]:
        size = self.quantizer.codebook_size
        counts = torch.stack([torch.bincount(book, minlength=size) for book in codes.T]).float()
        correct = (logits.argmax(dim=-1) == codes).float().mean(dim=1).sum()
        most_frequent = counts.max(dim=1).values.mean()
        used = (counts > 0).sum(dim=1).float().mean() * len(codes)
        facts = torch.stack((correct, most_frequent, used)).tolist()
        return dict(zip(("correct", "most_frequent", "codes_used"), facts, strict=True))

    def _idle(self, loss: TaskLoss, skipped_layers: Collection[int]) -> Iterator[nn.Parameter]:
        """The parameters that the loss does not depend on."""
        if not loss.count:
            yield from self.parameters()
            return
        for number in skipped_layers:
            yield from self.encoder.encoder.layers[number].parameters()
