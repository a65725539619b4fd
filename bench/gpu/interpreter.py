"""Triton's interpreter with today's NumPy, for machines without a GPU."""

from __future__ import annotations

import os
from typing import Any


def mend() -> None:
    """Lets kernels count up to numbers that they loaded, and multiply matrices of bfloat16.

    From NumPy 2.4 on only an array without dimensions becomes an `int`, and the interpreter's numbers have
    one. NumPy knows no bfloat16: the interpreter multiplies the bits as if they were integers.
    """
    assert os.environ.get("TRITON_INTERPRET") == "1", "TRITON_INTERPRET=1 has to be set before Python starts"
    from triton import language as tl
    from triton.runtime import interpreter

    patch, dot = interpreter._patch_lang_tensor, interpreter.InterpreterBuilder.create_dot

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda number: int(number.handle.data.item()))

    def wide(builder: Any, matrix: Any) -> Any:
        return builder.cast_impl(matrix, tl.float32) if matrix.dtype == tl.bfloat16 else matrix

    def dot_of_wide(builder: Any, one: Any, other: Any, *rest: Any) -> Any:
        return dot(builder, wide(builder, one), wide(builder, other), *rest)

    interpreter._patch_lang_tensor = patched
    interpreter.InterpreterBuilder.create_dot = dot_of_wide
