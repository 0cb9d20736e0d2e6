from __future__ import annotations

import numpy as np
import pytest

from hpcsort.errors import OptionError
from hpcsort.geometry import point_group

_ORDERS = {"C1": 1, "c2": 2, "C7": 7, "C13": 13, "D1": 2, "D2": 4, "d7": 14, "T": 12, "O": 24}
_ORDERS |= dict.fromkeys(("I", "I1", "I2", "I3", "i4"), 60)


@pytest.mark.parametrize(("name", "order"), _ORDERS.items())
def test_point_groups_are_groups_of_rotations(name: str, order: int) -> None:
    group = point_group(name)
    assert group.shape == (order, 3, 3)
    np.testing.assert_array_equal(group[0], np.eye(3))
    np.testing.assert_allclose(group @ group.transpose(0, 2, 1), np.broadcast_to(np.eye(3), group.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(group), 1.0)
    products = np.einsum("aij,bjk->abik", group, group).reshape(-1, 9)
    distance = np.abs(products[:, None] - group.reshape(1, order, 9)).max(axis=2).min(axis=1)
    assert distance.max() < 1e-9
    apart = np.abs(group.reshape(order, 1, 9) - group.reshape(1, order, 9)).max(axis=2) + 10 * np.eye(order)
    assert apart.min() > 1e-3


# the axes that RELION's symmetry table names for each group: (group, fold, x, y, z)
_AXES = [
    ("C5", 5, 0, 0, 1),
    ("D3", 3, 0, 0, 1),
    ("D3", 2, 1, 0, 0),
    ("T", 3, 0, 0, 1),
    ("T", 2, 0, 0.816496, 0.577350),
    ("O", 3, 0.5773502, 0.5773502, 0.5773502),
    ("O", 4, 0, 0, 1),
    ("I2", 2, 0, 0, 1),
    ("I2", 5, 0.525731114, 0, 0.850650807),
    ("I2", 3, 0, 0.356822076, 0.934172364),
    ("I1", 2, 1, 0, 0),
    ("I1", 5, 0.85065080702670, 0, -0.5257311142635),
    ("I1", 3, 0.9341723640, 0.3568220765, 0),
    ("I3", 2, -0.5257311143, 0, 0.8506508070),
    ("I3", 5, 0, 0, 1),
    ("I3", 3, -0.4911234778630044, 0.3568220764705179, 0.7946544753759428),
    ("I4", 2, 0.5257311143, 0, 0.8506508070),
    ("I4", 5, 0.8944271932547096, 0, 0.4472135909903704),
    ("I4", 3, 0.4911234778630044, 0.3568220764705179, 0.7946544753759428),
]


@pytest.mark.parametrize(("name", "fold", "x", "y", "z"), _AXES)
def test_axes_lie_where_relion_puts_them(name: str, fold: int, x: float, y: float, z: float) -> None:
    group = point_group(name)
    keeps_axis = np.abs(group @ [x, y, z] - [x, y, z]).max(axis=1) < 1e-5
    assert keeps_axis.sum() == fold


@pytest.mark.parametrize("name", ["", "C0", "C", "X3", "I5", "CI", "D-1", "C99999"])
def test_other_names_are_refused_with_the_cure(name: str) -> None:
    with pytest.raises(OptionError, match="give Cn or Dn"):
        point_group(name)
