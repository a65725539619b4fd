"""What a position scheme is, and the schemes by name: a new one is a class that registers itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeVar

from torch import Tensor

if TYPE_CHECKING:
    from w2vbert.config import Wav2Vec2BertConfig
    from w2vbert.encoder.attention import SelfAttention
    from w2vbert.encoder.layout import Layout

BlockBias = Callable[[int, int], Tensor]
"""(start, stop) -> (batch, heads, stop - start, keys): what to add to the scaled scores of those queries."""


class Band(NamedTuple):
    """A term that depends on the clipped distance of key and query alone, as kernels take it.

    Attributes:
        products: (total, heads, at least left + right + 1), of each query for the distances -left to right,
            unscaled; what comes after these is read by nobody.
        left, right: distances at which it is clipped.
    """

    products: Tensor
    left: int
    right: int


class PositionScheme:
    """How attention learns where a frame is; the base is attention without positions.

    A scheme reads the configuration and holds no tensors: what it learns are parameters of each attention
    module, under the names that it gives them there.

    Attributes:
        extra_fields: keys of a configuration beyond its published fields that the scheme reads; encoders that
            differ in them are not the same.
    """

    extra_fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        self.config = config

    @classmethod
    def check(cls, config: Wav2Vec2BertConfig) -> None:
        """Raise `ValueError` with the reason where a configuration does not go with the scheme."""

    def add_parameters(self, attention: SelfAttention) -> None:
        """Give an attention module the parameters of the scheme."""

    def init_parameters(self, attention: SelfAttention) -> None:
        """Initialise them; linear layers and embeddings are initialised already, as all are."""

    def shared(self, frames: Tensor, layout: Layout) -> Tensor | None:
        """What all layers of a pass share: computed once for (total, hidden_size) frames."""
        return None

    def of_layer(self, attention: SelfAttention, shared: Tensor | None) -> Tensor | None:
        """What a layer makes of the shared tensor, once for all of its frames."""
        return shared

    def turn(self, frames: Tensor, shared: Tensor | None) -> Tensor:
        """(total, width) -> the same: what queries and keys are projected from."""
        return frames

    def score(
        self, attention: SelfAttention, query: Tensor, keys: int, of_layer: Tensor | None
    ) -> tuple[Tensor, BlockBias | None]:
        """The queries that meet the keys, and the term that is added to the scaled products.

        Args:
            query: (batch, heads, queries, head_size).
            keys: number of keys.
        """
        return query, None

    def band(self, attention: SelfAttention, query: Tensor) -> Band | None:
        """What `score` says, where that is a band and queries stay as they are; `None` where it is not.

        Args:
            query: (total, heads, head_size).
        """
        return None


POSITION_SCHEMES: dict[str | None, type[PositionScheme]] = {}
"""The schemes by `position_embeddings_type`; `None` is attention without positions."""

_Scheme = TypeVar("_Scheme", bound=type[PositionScheme])


def register_position_scheme(name: str | None) -> Callable[[_Scheme], _Scheme]:
    """Class decorator: a configuration may name the scheme from now on.

    Raises:
        ValueError: another scheme has the name.
    """

    def register(scheme: _Scheme) -> _Scheme:
        if POSITION_SCHEMES.setdefault(name, scheme) is not scheme:
            raise ValueError(f"there is a position scheme {name!r} already")
        return scheme

    return register


def position_scheme(config: Wav2Vec2BertConfig) -> PositionScheme:
    """The scheme that a configuration names."""
    return POSITION_SCHEMES[config.position_embeddings_type](config)
