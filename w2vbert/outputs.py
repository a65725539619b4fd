"""What the models return: the published output classes.

An output is a dictionary of what was computed, in the published order. It has attributes (`output.logits`),
`None` where there is nothing, and reads as a tuple (`output[0]`, `output[:2]`, `output.to_tuple()`).
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NoReturn

from torch import Tensor
from torch.utils import _pytree as pytree

# Where transformers keeps the classes of these names.
_PUBLISHED = ("transformers.modeling_outputs", "transformers.models.wav2vec2.tokenization_wav2vec2")


class ModelOutput(OrderedDict[str, Any]):
    """Base of all outputs: a subclass annotates its fields, in order.

    Takes the fields by name or in order, or a mapping of them, or pairs of names and values: collectives,
    mixed precision and torch's pytrees make outputs again by `type(output)(...)`.
    """

    _fields: ClassVar[tuple[str, ...]] = ()

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Its own; and where transformers is loaded, that of its name there, which others ask for."""
        own = type(self)
        named = (getattr(sys.modules.get(module), own.__name__, None) for module in _PUBLISHED)
        peer = sys.modules.get("transformers.utils.generic")
        return next(filter(None, named), getattr(peer, "ModelOutput", own))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(cls.__annotations__)
        pytree.register_pytree_node(
            cls,
            lambda output: (list(output.values()), list(output)),
            lambda values, names: cls(**dict(zip(names, values, strict=True))),
            serialized_type_name=f"{cls.__module__}.{cls.__name__}",
            flatten_with_keys_fn=lambda output: (
                [(pytree.MappingKey(name), value) for name, value in output.items()],
                list(output),
            ),
        )

    def __init__(self, *values: Any, **named: Any) -> None:
        super().__init__()
        if len(values) == 1 and isinstance(values[0], Iterable) and not isinstance(values[0], Tensor):
            given = values[0] if isinstance(values[0], Mapping) else list(values[0])
            pairs = dict(given)
        else:
            pairs = dict(zip(self._fields, values, strict=False))
        unknown = [name for name in named if name not in self._fields]
        if unknown or len(values) > len(self._fields):
            raise TypeError(f"{type(self).__name__} takes {', '.join(self._fields)}; got {unknown or values}")
        pairs.update(named)
        for name in (*self._fields, *pairs):
            if pairs.get(name) is not None:
                super().__setitem__(name, pairs[name])

    def __getattr__(self, name: str) -> Any:
        if name not in self._fields and name not in self:
            raise AttributeError(f"{type(self).__name__} has no {name!r}; it has {', '.join(self._fields)}")
        return self.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._fields or name in self:
            self[name] = value
        else:
            super().__setattr__(name, value)

    def _refuse(self, *arguments: Any, **named: Any) -> NoReturn:
        raise TypeError(f"the fields of {type(self).__name__} are set one by one: output.logits = ...")

    __delitem__ = pop = popitem = setdefault = update = _refuse

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __setitem__(self, name: str, value: Any) -> None:
        """Set a field, which keeps its place in the order; `None` takes it away."""
        content = {**self, name: value}
        self.clear()
        for name in (*self._fields, *content):
            if content.get(name) is not None:
                super().__setitem__(name, content[name])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.items())})"

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are set, in order: what the model returns under `return_dict=False`."""
        return tuple(self.values())


class Wav2Vec2BaseModelOutput(ModelOutput):
    """Output of the bare encoder. Frames of padding are zero in every tensor.

    Attributes:
        last_hidden_state: (batch, frames, width), after the adapter if there is one.
        extract_features: (batch, frames, features), the layer-normalised input features.
        hidden_states: (batch, frames, hidden_size) each; the input of the first layer and the output of each.
            `hidden_states[-1]` is the last *encoder* layer; with an adapter it is not `last_hidden_state`.
        attentions: (batch, heads, frames, frames) each; the weights that every encoder layer applied.
    """

    last_hidden_state: Tensor | None
    extract_features: Tensor | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


Wav2Vec2BertBaseModelOutput = Wav2Vec2BaseModelOutput


class CausalLMOutput(ModelOutput):
    """Output of the CTC model.

    Attributes:
        loss: scalar, if labels were given (per clip under `ctc_loss_reduction="none"`).
        logits: (batch, frames, vocab_size), before softmax.
        hidden_states, attentions: as `Wav2Vec2BaseModelOutput`.
    """

    loss: Tensor | None
    logits: Tensor | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


class SequenceClassifierOutput(ModelOutput):
    """Output of the sequence classification model.

    Attributes:
        loss: scalar, if labels were given.
        logits: (batch, num_labels), before softmax or sigmoid.
        hidden_states, attentions: as `Wav2Vec2BaseModelOutput`.
    """

    loss: Tensor | None
    logits: Tensor | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


class TokenClassifierOutput(ModelOutput):
    """Output of the frame classification model.

    Attributes:
        loss: scalar, if labels were given.
        logits: (batch, frames, num_labels), before softmax or sigmoid.
        hidden_states, attentions: as `Wav2Vec2BaseModelOutput`.
    """

    loss: Tensor | None
    logits: Tensor | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


class XVectorOutput(ModelOutput):
    """Output of the x-vector model.

    Attributes:
        loss: scalar, if labels were given.
        logits: (batch, xvector_output_dim), input of the AM-softmax.
        embeddings: (batch, xvector_output_dim), one vector per clip for comparing speakers.
        hidden_states, attentions: as `Wav2Vec2BaseModelOutput`.
    """

    loss: Tensor | None
    logits: Tensor | None
    embeddings: Tensor | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None
