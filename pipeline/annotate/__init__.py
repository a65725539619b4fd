"""Checkpoints, packs and one pass of the encoder."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from pipeline import Annotations, annotate


class _Room(ModuleType):
    """This room has the name of the function `pipeline.annotate`, whose place it takes once it is imported:
    so it can be called."""

    def __call__(self, *arguments: Any, **options: Any) -> Annotations:
        return annotate(*arguments, **options)


sys.modules[__name__].__class__ = _Room
