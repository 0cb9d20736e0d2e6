"""The band in which independent class maps agree."""

from __future__ import annotations

import numpy as np
import pytest

from hpcsort.parallel import stream
from hpcsort.sort3d.marching import common_band
from hpcsort.volumes import BandGrid

GRID = BandGrid(32, 12)


def volumes(key: str, count: int) -> np.ndarray:
    """White noise in real space, so that all shells have the same power."""
    return GRID.to_fourier(stream(0, key).standard_normal((count, 32, 32, 32)).astype(np.float32))


@pytest.mark.parametrize("edge", [3, 7, 11])
def test_band_ends_where_the_shared_signal_ends(edge: int) -> None:
    shared = np.where(GRID.shell <= edge, volumes("shared", 3), 0)
    first = 3 * shared + volumes("first", 3)
    second = 3 * shared + volumes("second", 3)
    assert abs(common_band(GRID, first, second) - edge) <= 1


def test_order_of_classes_does_not_matter() -> None:
    shared = np.where(GRID.shell <= 8, volumes("shared", 3), 0)
    second = (3 * shared + volumes("second", 3))[[2, 0, 1]]
    assert abs(common_band(GRID, 3 * shared + volumes("first", 3), second) - 8) <= 1


def test_the_class_that_reaches_farthest_decides() -> None:
    shared = volumes("shared", 2)
    shared[0, GRID.shell > 4] = 0
    first, second = (3 * shared + volumes(name, 2) for name in ("first", "second"))
    assert common_band(GRID, first, second) == GRID.radius


def test_noise_alone_agrees_nowhere() -> None:
    assert common_band(GRID, volumes("a", 2), volumes("b", 2)) <= 2


def test_absent_classes() -> None:
    assert common_band(GRID, volumes("a", 0), volumes("b", 2)) == 0
