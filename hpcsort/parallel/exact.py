"""Sums whose bits do not depend on the order of the addends."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcsort.parallel.comm import Communicator


class ExactSum:
    """Elementwise sum of arrays that has the same bits for every order and grouping.

    Every addend is first rounded to a multiple of a quantum q = 2^e that is the same for all
    addends and ranks. Multiples of q add exactly in float64 while sums stay below 2^53 q, so
    addition becomes associative (pre-rounding: Demmel & Nguyen, Fast Reproducible Floating-Point
    Summation, ARITH 21, 2013). The error of a total of n addends is at most n q / 2, and
    q <= 2^-50 bound.

    Parameters
    ----------
    shape : int or tuple of int
        Shape of the sum.
    bound : float, > 0, the same on every rank
        At least the largest possible sum of absolute values in any element, over all addends of
        all ranks. It may not depend on the number of ranks.

    Attributes
    ----------
    total : float64, `shape`
        The sum so far (of this rank until `join`); a view, to be read only.
    quantum : float
        q.
    """

    def __init__(self, shape: int | tuple[int, ...], bound: float) -> None:
        if not (math.isfinite(bound) and bound > 0):
            raise ValueError(f"the bound of an exact sum must be a positive number, not {bound}")
        self.bound = float(bound)
        # bound <= 2^51 q leaves room for the rounding below and for that of up to 2^52 addends.
        self.quantum = math.ldexp(1.0, max(math.frexp(self.bound)[1] - 51, -1000))
        self._shift = 1.5 * 2.0**52 * self.quantum
        self._sum = np.zeros(shape, np.float64)
        self._peak = 0.0

    @property
    def total(self) -> NDArray[np.float64]:
        """The sum so far."""
        view = self._sum.view()
        view.flags.writeable = False
        return view

    def add(self, block: NDArray[Any], index: int | None = None, clear: bool = False) -> None:
        """Add one block.

        Parameters
        ----------
        block : float32 or float64, `shape`
            The addend; complex values go in as their real view. Runs of zeros cost almost nothing.
        index : int, optional
            Add to `total[index]` only; the block then has the shape of that.
        clear : bool
            Set the block to zero afterwards: cheaper here than in a pass of its own.

        Raises
        ------
        RuntimeError
            A total exceeds the bound or is not a number: the sum is then no longer exact.
        ValueError
            The block has another shape, or should be cleared but is read-only.
        TypeError
            The block has another dtype.
        """
        # Late: what explains errors to the user lives in this package, and kernels that cannot be loaded are one.
        from hpcsort.kernels import add_rounded

        target = self._sum if index is None else self._sum[index, ...]
        if block.shape != target.shape:
            raise ValueError(f"a block of shape {block.shape} for an exact sum of shape {target.shape}")
        if block.dtype not in (np.float32, np.float64):
            raise TypeError(f"exact sums take float32 or float64, not {block.dtype}")
        if clear and not block.flags.writeable:
            raise ValueError("a read-only block cannot be cleared")
        whole = block.flags.c_contiguous
        addend = block if whole else np.ascontiguousarray(block)
        # Adding 1.5 * 2^52 q leaves no bits below q; a tie depends on the addend alone.
        peak = add_rounded(target.reshape(-1), addend.reshape(-1), self._shift, clear=clear and whole)
        if clear and not whole:
            block[...] = 0
        self._check(peak)
        # Of an element the kernel sees the size after every addition that changes it.
        self._peak = max(self._peak, peak)

    def join(self, comm: Communicator) -> NDArray[np.float64]:
        """Add the sums of all ranks; afterwards every rank holds the same total.

        Call it once; then start a new sum. Raises RuntimeError where the bound is exceeded or the
        ranks disagree about it.
        """
        told = comm.allgather((self.quantum, self._peak))
        if any(quantum != self.quantum for quantum, _ in told):
            raise RuntimeError(f"the ranks sum with different quanta: {sorted({quantum for quantum, _ in told})}")
        largest = sum(peak for _, peak in told)
        if largest > 2.0**53 * self.quantum:
            # No proof from the peaks alone, so look at every element.
            sizes = comm.sum_exact(np.abs(self._sum))
            self._check(float(sizes.max(initial=0.0)))
        comm.sum_exact(self._sum)
        if largest > self.bound:
            self._check(float(np.abs(self._sum).max(initial=0.0)))
        return self.total

    def _check(self, peak: float) -> None:
        # The addends' rounding may add half a quantum each, hence the margin.
        if not peak <= self.bound * (1 + 2.0**-20):
            raise RuntimeError(f"an exact sum reached {peak:g} where at most {self.bound:g} was announced")
