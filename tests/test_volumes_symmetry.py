"""Symmetrised maps against Gaussians whose mates are known."""

from __future__ import annotations

import numpy as np
import pytest

from hpcsort.geometry import point_group
from hpcsort.volumes import symmetrise_map


def _gaussians(box: int, centres: np.ndarray) -> np.ndarray:
    axis = np.arange(box) - box // 2
    total = np.zeros((box,) * 3)
    for x, y, z in centres:
        for_axis = [np.exp(-((axis - place) ** 2) / (2 * 1.6**2)) for place in (z, y, x)]
        total += for_axis[0][:, None, None] * for_axis[1][:, None] * for_axis[2]
    return total


@pytest.mark.parametrize("box", [24, 25])
@pytest.mark.parametrize("name", ["C1", "C3", "D2", "D7", "T", "O", "I"])
def test_every_mate_is_where_its_operator_puts_it(box: int, name: str) -> None:
    operators = point_group(name)
    centre = np.array([3.0, 1.7, -4.2])
    result = symmetrise_map(_gaussians(box, centre[None]), operators)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, _gaussians(box, operators @ centre) / len(operators), atol=4e-3)


def test_symmetrising_twice_changes_little_and_shapes_are_checked() -> None:
    operators = point_group("D3")
    once = symmetrise_map(_gaussians(24, np.array([[2.0, 3.0, 4.0], [-3.0, 0.0, 1.0]])), operators)
    np.testing.assert_allclose(symmetrise_map(once, operators), once, atol=5e-3)
    with pytest.raises(ValueError, match="not a cube"):
        symmetrise_map(np.zeros((4, 4, 5)), operators)
