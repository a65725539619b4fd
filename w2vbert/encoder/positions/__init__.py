"""How attention learns where a frame is: the published position schemes, one file each, and a registry.

A relative scheme adds a term to the scores of queries and keys. The term is a function of a block of queries,
so that no more than a block of it need exist at a time.
"""

from w2vbert.encoder.positions.base import (
    POSITION_SCHEMES,
    Band,
    BlockBias,
    PositionScheme,
    position_scheme,
    register_position_scheme,
)
from w2vbert.encoder.positions.rotary import Rotary, rotate, rotation
from w2vbert.encoder.positions.shaw import RelativeKey, shaw_bias
from w2vbert.encoder.positions.transformer_xl import TransformerXL, sinusoids, transformer_xl_bias

__all__ = [
    "POSITION_SCHEMES",
    "Band",
    "BlockBias",
    "PositionScheme",
    "RelativeKey",
    "Rotary",
    "TransformerXL",
    "position_scheme",
    "register_position_scheme",
    "rotate",
    "rotation",
    "shaw_bias",
    "sinusoids",
    "transformer_xl_bias",
]

register_position_scheme(None)(PositionScheme)
