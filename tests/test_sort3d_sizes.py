"""Group sizes: what the FSC says of them, which remnants go, how many classes remain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcsort.sort3d.sizes import res143, reset_classes, size_range

_TOTAL = 10_000
_CURVE = 1.0 / (1.0 + np.exp((np.arange(40) - 20) / 1.5))


def test_the_resolution_of_all_particles_is_that_of_the_curve() -> None:
    expected = int(np.flatnonzero(_CURVE < 0.143)[0]) - 1
    assert res143(_CURVE, _TOTAL, _TOTAL) == expected
    # Signal-to-noise ratio is proportional to size: SNR at FSC 0.143 is 1/6, so a sixth of the particles reaches the
    # shell where the curve is 1/2.
    assert res143(_CURVE, _TOTAL, _TOTAL / 5.99) == 20
    assert res143(np.ones(12), _TOTAL, 5) == 11


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 10**5), min_size=2, max_size=20))
def test_more_particles_never_lower_the_resolution(sizes: list[int]) -> None:
    shells = [res143(_CURVE, _TOTAL, size) for size in sorted(sizes)]
    assert shells == sorted(shells)


@settings(max_examples=80, deadline=None)
@given(
    count=st.integers(0, 20_000),
    classes=st.integers(1, 29),
    freeze=st.booleans(),
    width=st.floats(0.1, 10.0),
    flat=st.booleans(),
)
def test_the_range_lies_inside_an_even_share(count: int, classes: int, freeze: bool, width: float, flat: bool) -> None:
    curve = np.ones(30) if flat else 1.0 / (1.0 + np.exp((np.arange(30) - 15) / width))
    low, high = size_range(curve, _TOTAL, count, classes, freeze)
    assert 1 <= low <= high <= max(count // classes, 1)


def test_a_flat_curve_gives_shares_of_an_even_group() -> None:
    # Nothing distinguishes sizes: a third of an even share to nine tenths of it.
    assert size_range(np.ones(30), _TOTAL, 9000, 3, True) == (1000, 2700)


def test_a_steep_curve_gives_a_narrow_range_when_frozen_and_a_wide_one_else() -> None:
    curve = 1.0 / (1.0 + np.exp((np.arange(400) - 200) / 30.0))
    low, high = size_range(curve, _TOTAL, 9000, 3, True)
    shells = [res143(curve, _TOTAL, size) for size in (low, high)]
    assert shells[0] == shells[1]
    assert high - low <= 0.25 * 3000
    wide = size_range(curve, _TOTAL, 9000, 3, False)
    assert wide[0] <= min(low, 1000)
    assert wide[1] >= max(high, 2700)


def test_the_curve_belongs_to_all_particles_in_later_generations_too() -> None:
    whole = size_range(_CURVE, _TOTAL, 3000, 3, True)
    assert whole == size_range(_CURVE, _TOTAL, 3000, 3, True)
    # The same curve from fewer particles promises more to each of them.
    assert res143(_CURVE, 3000, 500) > res143(_CURVE, _TOTAL, 500)


@pytest.mark.parametrize(
    ("sizes", "unaccounted", "classes", "expected"),
    [
        ([1000, 1000, 1000], 2000, 7, 4),  # 1 % of 5000 is not worth a class
        ([1000, 1000, 1000], 2060, 7, 5),
        ([1000, 1000, 1000], 30, 7, 3),
        ([1000, 1000, 1000], 6000, 7, 3),  # as many as before or more: no room
        ([1000, 1000], 3000, 7, 7),
        ([1000] * 5, 0, 5, 5),
    ],
)
def test_the_number_of_classes_is_counted_anew(sizes: list[int], unaccounted: int, classes: int, expected: int) -> None:
    assert reset_classes(np.array(sizes), unaccounted, 5000, classes) == expected
