"""The minimum group size and its schedule."""

from __future__ import annotations

__all__ = ["minimum_sizes", "smallest_group"]

_SMALLEST_SHARE = 0.01
_FEWEST = 30


def smallest_group(count: int) -> int:
    """Smallest group that is looked for among ``count`` particles: 1 %, and at least 30."""
    return max(int(_SMALLEST_SHARE * count), _FEWEST)


def minimum_sizes(high: int, low: int, steps: int) -> list[int]:
    """Minimum group sizes in the order in which they hold (SORT3D_DEPTH: bisection from ``high`` towards ``low``).

    Parameters
    ----------
    high, low : first size, and the size that later ones approach.
    steps : number of sizes; one step is ``high`` alone.
    """
    sizes = [high]
    while len(sizes) < steps:
        # The reference's table: two steps are high and low, three have the mean between them.
        last = steps in (2, 3) and len(sizes) == steps - 1
        sizes.append(low if last else (sizes[-1] + low) // 2)
    return sizes
