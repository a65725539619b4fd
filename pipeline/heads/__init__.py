"""What each task makes of the encoder's frames: model outputs per window, columns per clip."""

from pipeline.heads.build import build_heads, columns_of
from pipeline.heads.head import Clip, Head, Piece, Reading

__all__ = ["Clip", "Head", "Piece", "Reading", "build_heads", "columns_of"]
