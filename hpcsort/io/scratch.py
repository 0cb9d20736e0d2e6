"""Copies of image stacks on a node's own disk."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["scratch_copy"]


def scratch_copy(stack: Path) -> Path:
    """Return the copy of a stack in the folder that HPCSORT_SCRATCH names, or the stack where there is none.

    The copy lies there under the whole path of the stack, where `cp --parents` puts it. Tables, checkpoints and results
    keep the stack's own name: the copy is only read.
    """
    folder = os.environ.get("HPCSORT_SCRATCH")
    if not folder:
        return stack
    copy = Path(folder, str(stack.absolute()).lstrip("/"))
    return copy if copy.is_file() else stack
