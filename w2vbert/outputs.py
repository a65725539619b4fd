"""What the models return: the published output classes.

An output has attributes, and reads as a tuple of those that are set (`output[0]`, `output[:2]`,
`output.to_tuple()`) or as a mapping of them (`output["logits"]`, `output.items()`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor


class ModelOutput(Mapping[str, Any]):
    """Base of all outputs: a subclass is a dataclass whose fields default to `None`, that is absent."""

    def _names(self) -> list[str]:
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]  # subclasses are dataclasses
        return [name for name in names if getattr(self, name) is not None]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __getitem__(self, key: str | int | slice) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in self._names():
            raise KeyError(key)
        return getattr(self, key)

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are set, in order: what the model returns under `return_dict=False`."""
        return tuple(getattr(self, name) for name in self._names())


@dataclass(eq=False)
class Wav2Vec2BaseModelOutput(ModelOutput):
    """Output of the bare encoder. Frames of padding are zero in every tensor.

    Attributes:
        last_hidden_state: (batch, frames, width), after the adapter if there is one.
        extract_features: (batch, frames, features), the layer-normalised input features.
        hidden_states: (batch, frames, hidden_size) each; the input of the first layer and the output of each.
            `hidden_states[-1]` is the last *encoder* layer; with an adapter it is not `last_hidden_state`.
        attentions: (batch, heads, frames, frames) each; the weights that every encoder layer applied.
    """

    last_hidden_state: Tensor | None = None
    extract_features: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


Wav2Vec2BertBaseModelOutput = Wav2Vec2BaseModelOutput


@dataclass(eq=False)
class CausalLMOutput(ModelOutput):
    """Output of the CTC model.

    Attributes:
        loss: scalar, if labels were given (per clip under `ctc_loss_reduction="none"`).
        logits: (batch, frames, vocab_size), before softmax.
        hidden_states, attentions: as `Wav2Vec2BaseModelOutput`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass(eq=False)
class SequenceClassifierOutput(ModelOutput):
    """Output of the sequence classification model.

    Attributes:
        loss: scalar, if labels were given.
        logits: (batch, num_labels), before softmax or sigmoid.
        hidden_states, attentions: as `Wav2Vec2BaseModelOutput`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass(eq=False)
class TokenClassifierOutput(ModelOutput):
    """Output of the frame classification model.

    Attributes:
        loss: scalar, if labels were given.
        logits: (batch, frames, num_labels), before softmax or sigmoid.
        hidden_states, attentions: as `Wav2Vec2BaseModelOutput`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass(eq=False)
class XVectorOutput(ModelOutput):
    """Output of the x-vector model.

    Attributes:
        loss: scalar, if labels were given.
        logits: (batch, xvector_output_dim), input of the AM-softmax.
        embeddings: (batch, xvector_output_dim), one vector per clip for comparing speakers.
        hidden_states, attentions: as `Wav2Vec2BaseModelOutput`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    embeddings: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
