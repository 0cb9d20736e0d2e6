"""Adding rounded values: the step of sums whose bits do not depend on the order of the addends."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcsort.kernels._backend import implementation
from hpcsort.kernels._checks import check_array, check_output


def add_rounded(total: NDArray[np.float64], addend: NDArray[Any], shift: float, clear: bool = False) -> float:
    """Add ``(addend + shift) - shift``, worked out in float64, to `total` in one pass.

    With a shift of ``1.5 * 2**52 * q``, q a power of two, that is the addend rounded to a multiple of q, a tie to
    even, as long as it is below ``2**51 * q``: see `hpcsort.parallel.ExactSum`. The bits are the same on every
    instruction set.

    Parameters
    ----------
    total : float64 (n,)
        Added to in place. Where it is a zero, the sign of that is not specified.
    addend : float32 or float64 (n,)
        What is added; runs of zeros cost almost nothing. May be `total` itself, but may not overlap it otherwise.
    shift : float
        The shift.
    clear : bool
        Set the addend to zero afterwards, while it is still in the cache.

    Returns
    -------
    float
        Largest absolute value of the new total among the elements whose addend is not zero: 0 where there are none,
        NaN where one of them is NaN.

    Raises
    ------
    ValueError
        For wrong shapes or dtypes, arrays that are not C-contiguous, or one to be changed that is read-only.
    """
    check_output("total", total, np.float64, (None,))
    dtype = np.float64 if getattr(addend, "dtype", None) == np.float64 else np.float32
    check = check_output if clear else check_array
    check("addend", addend, dtype, total.shape)
    return float(implementation.add_rounded(total, addend, shift, clear))
