"""Group sizes: the minimum and its schedule, what the FSC says of it, and how many groups are left."""

from __future__ import annotations

import numpy as np

from hpcsort.volumes import fsc_of_size, last_shell_above

__all__ = ["minimum_sizes", "res143", "reset_classes", "size_range", "smallest_group"]

_SMALLEST_SHARE = 0.01
_FEWEST = 30
_FEWEST_STEP = 5
_WIDEST, _HIGHEST, _LOWEST = 0.25, 0.90, 1 / 3
"""Widest range of sizes of one resolution, and the range that replaces a wider one, in units of an even share."""
_IGNORED_SHARE = 0.01


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


def res143(fsc: np.ndarray, total: int, size: float) -> int:
    """Last shell with an FSC of at least 0.143 that ``size`` particles will reach.

    Parameters
    ----------
    fsc : float (shells,), curve between the half maps of ``total`` particles.
    total : number of particles to which the curve belongs, whatever the number sorted now.
    size : number of particles asked about.
    """
    return last_shell_above(fsc_of_size(np.asarray(fsc, np.float64), size / max(total, 1)), 0.143)


def size_range(fsc: np.ndarray, total: int, count: int, classes: int, freeze: bool) -> tuple[int, int]:
    """Lowest and highest minimum group size (SORT3D_DEPTH's table of one large and K - 1 small groups).

    With g = N / K, a small group of g - j d beside a large one of g + j d (K - 1) loses resolution as j grows. Where
    the small one is about 1 / (K + 1) of the large one, the sizes of equal resolution around it are the range. A range
    that says nothing (empty, or wider than g / 4) is replaced by a share of g.

    Parameters
    ----------
    fsc, total : curve and the number of particles to which it belongs (see `res143`).
    count : number N of particles that are sorted.
    classes : number K of groups.
    freeze : with freeze_groups a narrow range is left as it is.

    Returns
    -------
    (low, high), 1 <= low <= high <= g.
    """
    even = count // max(classes, 1)
    if even < 2:
        return 1, max(even, 1)
    small = _table_size(fsc, total, even, classes) if classes > 1 else even
    low, high = _same_resolution(fsc, total, small, even)
    if low >= high:
        high = low + even // 10
    if (high - low) / even > _WIDEST:
        low, high = int(min(even / 2, max(low, even * _LOWEST))), int(_HIGHEST * even)
    elif not freeze:
        low, high = int(min(even * _LOWEST, low)), int(max(_HIGHEST * even, high))
    low = max(low, 1)
    return low, max(min(high, even), low)


def _table_size(fsc: np.ndarray, total: int, even: int, classes: int) -> int:
    """Size of the small groups in the chosen row of the table: the last of those with the same loss of resolution."""
    step = max(even // 1000, _FEWEST_STEP)
    rows: list[tuple[int, int, int]] = []
    for small in range(even - step, 0, -step):
        large = even + (even - small) * (classes - 1)
        loss = res143(fsc, total, large) - res143(fsc, total, small)
        if rows and rows[-1][0] == loss:
            rows.pop()
        rows.append((loss, small, large))
    if not rows:
        return even
    return min(rows, key=lambda row: (abs(row[1] / row[2] - 1 / (classes + 1)), -row[1]))[1]


def _same_resolution(fsc: np.ndarray, total: int, size: int, even: int) -> tuple[int, int]:
    """Smallest and largest size with the resolution of ``size``, looked for between 1 and an even share."""
    shell = res143(fsc, total, size)
    step = max(size // 1000, _FEWEST_STEP)
    low = high = size
    while low - step >= 1 and res143(fsc, total, low - step) == shell:
        low -= step
    while high + step <= even and res143(fsc, total, high + step) == shell:
        high += step
    return low, high


def reset_classes(stable_sizes: np.ndarray, unaccounted: int, count: int, classes: int) -> int:
    """Count the classes with which a box goes on once superfluous classes have died out.

    As many as there are stable sets, and as many groups of their mean size as the unaccounted particles (but for 1 %
    of all) can fill. Fewer than three stable sets, or as many as classes, change nothing.

    Parameters
    ----------
    stable_sizes : int (M,), particles of each stable set that is kept.
    unaccounted, count : particles in none of them, and all.
    classes : number of classes now.
    """
    stable = len(stable_sizes)
    if not 2 < stable < classes:
        return classes
    mean = float(np.mean(stable_sizes))
    more = int((unaccounted - _IGNORED_SHARE * count) // mean) if mean > 0 else 0
    if more >= 1 and stable + more < classes:
        return stable + more
    return stable
