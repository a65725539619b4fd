"""The bare Wav2Vec2-BERT model: features in, frames out.

Source: Seamless Communication 2023 (arXiv:2312.05187), section 3.2.1, and the published
`Wav2Vec2BertModel`, whose signature, state-dict keys and numbers these are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.encoder.adapter import Adapter, adapter_lengths
from w2vbert.encoder.attention import SelfAttention
from w2vbert.encoder.conformer import Encoder, FeatureProjection, FeedForward
from w2vbert.encoder.layout import Layout
from w2vbert.encoder.masking import span_mask
from w2vbert.outputs import Wav2Vec2BertBaseModelOutput
from w2vbert.packing import Packed
from w2vbert.pretrained.model import Wav2Vec2BertPreTrainedModel
from w2vbert.pretrained.published import without_nones


@dataclass(frozen=True, eq=False)
class Encoding:
    """What heads read.

    Attributes:
        last_hidden_state: frames after the encoder and, if there is one, the adapter.
        extract_features: the layer-normalised input features.
        hidden_states: input of the first encoder layer and output of each, before any adapter:
            `num_hidden_layers + 1` of them; `None` if not asked for.
        attentions: (batch, heads, max_length, max_length) of each encoder layer, zero in padding, without
            partly filled last frames; `None` if not asked for.
    """

    last_hidden_state: Packed
    extract_features: Packed
    hidden_states: tuple[Packed, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class Draws:
    """What is random about a training pass, besides dropout.

    Attributes:
        generator: source of the random masks; torch's default one when `None`.
        skipped_layers: numbers of the encoder layers to leave out (LayerDrop), in training or not; when
            `None` drawn in training, by torch's default generator.
    """

    generator: torch.Generator | None = None
    skipped_layers: Collection[int] | None = None


_UNTOLD = Draws()


class Wav2Vec2BertModel(Wav2Vec2BertPreTrainedModel):
    """Encoder of filterbank features, with the adapter if configured.

    Raises:
        ConfigError: the configuration is impossible.
    """

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        config = Wav2Vec2BertConfig.of(config)
        super().__init__(config)
        config.validate()
        self.feature_projection = FeatureProjection(config)
        if config.mask_time_prob > 0.0 or config.mask_feature_prob > 0.0:
            self.masked_spec_embed = nn.Parameter(torch.empty(config.hidden_size))
        self.encoder = Encoder(config)
        self.adapter = Adapter(config) if config.add_adapter else None
        self.intermediate_ffn = None
        if config.use_intermediate_ffn_before_adapter:
            self.intermediate_ffn = FeedForward(config, activation="relu", width=config.hidden_size)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FeatureProjection):
            bound = module.projection.in_features**-0.5
            nn.init.uniform_(module.projection.weight, -bound, bound)
            nn.init.uniform_(module.projection.bias, -bound, bound)
        elif isinstance(module, SelfAttention):
            module.scheme.init_parameters(module)
        elif isinstance(module, Wav2Vec2BertModel) and hasattr(module, "masked_spec_embed"):
            nn.init.uniform_(module.masked_spec_embed)

    @without_nones
    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Wav2Vec2BertBaseModelOutput | tuple[Tensor, ...]:
        """Encode a padded batch, as published.

        Args:
            input_features: (batch, frames, feature_projection_input_dim).
            attention_mask: (batch, frames), non-zero on the frames of each clip, which usually come before
                its padding.
            mask_time_indices: (batch, frames), true where a frame is replaced by the mask embedding, in
                training or not
                (ignored, as published, without `apply_spec_augment`).
            output_attentions, output_hidden_states, return_dict: what to return; the configuration's choice
                when `None`.

        Returns:
            Padded tensors, zero in padding; a tuple of them if `return_dict` is false. Hidden states and
            attentions lie on the way of the gradient: `retain_grad` works on them.

        Raises:
            MaskError: the mask has another shape than the features, or a clip without frames.
            ClipTooShortError: a clip is shorter than what the adapter's convolution spans.
        """
        config = self.config
        encoding = self.encode(
            Packed.from_padded(input_features, attention_mask),
            mask_time_indices=mask_time_indices,
            output_hidden_states=(
                config.output_hidden_states if output_hidden_states is None else output_hidden_states
            ),
            output_attentions=config.output_attentions if output_attentions is None else output_attentions,
        )
        output = self.padded(encoding, input_features.shape[1])
        return_dict = config.return_dict if return_dict is None else return_dict
        return output if return_dict else output.to_tuple()

    def encode(
        self,
        features: Packed,
        *,
        num_valid: Sequence[int] | None = None,
        mask_time_indices: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        draws: Draws = _UNTOLD,
    ) -> Encoding:
        """Encode clips laid end to end.

        The published extractor's mask leaves out a last frame that the audio fills only in part; the
        published model computes that frame all the same and the published decoding reads it. To have it,
        keep it in the features (`extract(keep_partial=True)`) and leave it out of `num_valid`: it looks at
        the clip, and no valid frame looks at it. Each clip then gets what the published model gives it
        alone, whatever the batch.

        Args:
            features: (total, feature_projection_input_dim).
            num_valid: how many frames of each clip the audio fills wholly; all of them when omitted.
                Attention and convolution look at no others. States come back for every frame of `features`.
                An adapter convolves over every frame too and masks its own attention as published, so its
                frames are `output_lengths(features.lengths)`, and the last of a clip may have read the
                partial one.
            mask_time_indices: (batch, max_length), as in `forward`.
            draws: the random choices of training that the caller makes.

        Raises:
            ClipTooShortError: a clip is shorter than what the adapter's convolution spans.
            ValueError: `num_valid` is not one number per clip, from 1 to the clip's frames.
        """
        layout = Layout(
            features.lengths,
            features.frames.device,
            num_valid=num_valid,
            places=features.places,
            width=features.width,
        )
        frames, extracted = self.feature_projection(features.frames)
        frames = self._spec_augment(frames, layout, mask_time_indices, draws.generator)
        encoded = self.encoder(
            frames,
            layout,
            record=_recorder(features) if output_hidden_states else None,
            attentions=output_attentions,
            skipped_layers=draws.skipped_layers,
        )
        frames = encoded.frames
        if self.intermediate_ffn is not None:
            frames = frames + 0.5 * self.intermediate_ffn(frames)
        last = features.with_frames(frames)
        if self.adapter is not None:
            frames, after = self.adapter(frames, layout)
            last = Packed(frames, after.lengths)
        return Encoding(
            last_hidden_state=last,
            extract_features=features.with_frames(extracted),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    def _spec_augment(
        self,
        frames: Tensor,
        layout: Layout,
        mask_time_indices: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Replace masked frames by the mask embedding and masked features by zero (SpecAugment)."""
        config = self.config
        if not config.apply_spec_augment:
            return frames
        masked: Tensor | None = None
        if mask_time_indices is None and config.mask_time_prob > 0.0 and self.training:
            drawn = span_mask(
                layout.num_valid,
                config.mask_time_prob,
                config.mask_time_length,
                min_masks=config.mask_time_min_masks,
                max_length=max(layout.lengths),
                generator=generator,
            )
            masked = drawn.to(frames.device)[layout.rows, layout.ordinals]
        elif mask_time_indices is not None:
            masked = mask_time_indices.to(frames.device).bool()[layout.rows, layout.positions]
        if masked is not None:
            # Without any mask probability the published model has no mask embedding: given masks then mean
            # zeros.
            embedding = getattr(self, "masked_spec_embed", frames.new_zeros(()))
            frames = torch.where(masked.unsqueeze(1), embedding.to(frames.dtype), frames)
        if config.mask_feature_prob > 0.0 and self.training:
            mask = span_mask(
                (config.hidden_size,) * len(layout.lengths),
                config.mask_feature_prob,
                config.mask_feature_length,
                min_masks=config.mask_feature_min_masks,
                generator=generator,
            )
            frames = frames.masked_fill(mask.to(frames.device)[layout.rows], 0.0)
        return frames

    def padded(self, encoding: Encoding, length: int) -> Wav2Vec2BertBaseModelOutput:
        """An encoding as `forward` returns it: padded batches, zero in padding.

        Args:
            length: frames per row of the features; in `last_hidden_state` the adapter makes fewer of them.
        """
        states, attentions = encoding.hidden_states, encoding.attentions
        return Wav2Vec2BertBaseModelOutput(
            last_hidden_state=encoding.last_hidden_state.pad(length=self.output_lengths((length,))[0]),
            extract_features=encoding.extract_features.pad(length=length),
            hidden_states=None if states is None else tuple(state.pad(length=length) for state in states),
            attentions=(
                None
                if attentions is None
                else tuple(a if a.shape[-1] == length else _widened(a, length) for a in attentions)
            ),
        )

    def packed(self, output: Wav2Vec2BertBaseModelOutput, attention_mask: Tensor | None) -> Encoding:
        """The encoding that `forward` returned as padded batches, without attentions.

        Args:
            attention_mask: as of the features.
        """
        features = Packed.from_padded(output["extract_features"], attention_mask)
        last = output["last_hidden_state"]
        lengths = self.output_lengths(features.lengths)
        if self.config.add_adapter:
            after = None
            if min(lengths) < last.shape[1]:
                ends = torch.tensor(lengths, device=last.device)
                after = torch.arange(last.shape[1], device=last.device) < ends[:, None]
            last_hidden_state = Packed.from_padded(last, after)
        else:
            last_hidden_state = features.of(last)
        states = output.hidden_states
        return Encoding(
            last_hidden_state=last_hidden_state,
            extract_features=features,
            hidden_states=None if states is None else tuple(features.of(state) for state in states),
        )

    def output_lengths(self, lengths: Sequence[int]) -> tuple[int, ...]:
        """Frames of each clip in `last_hidden_state`, given the frames of its features.

        Raises:
            ClipTooShortError: as `forward`.
        """
        if self.config.add_adapter:
            for _ in range(self.config.num_adapter_layers):
                lengths = adapter_lengths(self.config, lengths)
        return tuple(lengths)


def _recorder(features: Packed) -> Callable[[Tensor], Packed]:
    """Makes hidden states of frames; those of a padded batch lie on the way of the gradient."""
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined]  # checked without gradients
    if features.width is not None and (torch.is_grad_enabled() or traced):
        return lambda frames: features.with_frames(frames).through_rows()
    return features.with_frames


def _widened(attention: Tensor, width: int) -> Tensor:
    more = width - attention.shape[-1]
    return F.pad(attention, (0, more, 0, more))
