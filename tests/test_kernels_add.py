"""Adding rounded values: both implementations, on every instruction set this machine has, to the bit."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from hpcsort import kernels
from hpcsort.kernels import _reference

SIZES = [0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 97, 1009]
QUANTUM = 2.0**-20
SHIFT = 1.5 * 2.0**52 * QUANTUM
DTYPES = [np.float32, np.float64]


@pytest.fixture(params=["numpy", "baseline", "avx2", "avx512"], autouse=True)
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    module = importlib.import_module("hpcsort.kernels.add")
    if request.param == "numpy":
        monkeypatch.setattr(module, "implementation", _reference)
        yield request.param
        return
    native = pytest.importorskip("hpcsort.kernels._native", reason="the compiled kernels are not built")
    monkeypatch.setattr(module, "implementation", native)
    best = native.instruction_set()
    try:
        native.use_instruction_set(request.param)
    except ValueError:
        pytest.skip(f"this processor has no {request.param}")
    try:
        yield request.param
    finally:
        native.use_instruction_set(best)


def draw(size: int, dtype: Any, seed: int = 0) -> tuple[Any, Any]:
    """Return a total and an addend of many magnitudes with ties, zeros and a run of zeros."""
    rng = np.random.default_rng([size, seed])
    addend = rng.standard_normal(size) * 10.0 ** rng.integers(-9, 5, size)
    ties = rng.random(size) < 0.2
    addend[ties] = (rng.integers(-9, 9, int(ties.sum())) + 0.5) * QUANTUM
    addend[rng.random(size) < 0.1] = 0
    if size > 40:
        addend[size // 3 : size // 3 + 60] = 0
    return rng.integers(-(2**40), 2**40, size) * QUANTUM, addend.astype(dtype)


def at_offset(array: Any, offset: int) -> Any:
    """Return a copy that starts `offset` elements behind a 64-byte boundary."""
    raw = kernels.aligned_empty((array.size + offset,), array.dtype)
    raw[offset:] = array
    return raw[offset:]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_multiples_of_the_quantum_are_added(size: int, dtype: Any) -> None:
    before, addend = draw(size, dtype)
    # Python's round() takes a tie to even, and a power of two scales without rounding.
    rounded = [QUANTUM * round(float(x) / QUANTUM) for x in addend]
    expected = [math.fsum(pair) for pair in zip(before, rounded, strict=True)]
    for (total_at, addend_at), clear in product([(0, 0), (1, 0), (3, 5)], [False, True]):
        total, part = at_offset(before, total_at), at_offset(addend, addend_at)
        peak = kernels.add_rounded(total, part, SHIFT, clear=clear)
        assert total.tolist() == expected
        assert peak == max((abs(t) for t, x in zip(expected, addend, strict=True) if x), default=0.0)
        assert np.array_equal(part, np.zeros(size) if clear else addend)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [*SIZES, 12_345])
def test_the_twin_gives_the_same_bits(size: int, dtype: Any) -> None:
    for seed, shift in product(range(5), [SHIFT, 1.5 * 2.0**52, 1e-280, 0.0]):
        before, addend = draw(size, dtype, seed)
        total, theirs, part = before.copy(), before.copy(), addend.copy()
        peak = kernels.add_rounded(total, part, shift, clear=True)
        assert peak == _reference.add_rounded(theirs, addend, shift, True)
        # Added to +0 or anything else, a zero never gives -0.
        assert total.tobytes() == theirs.tobytes()
        assert not part.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_nan_wins_over_infinity_wherever_it_is(value: float, dtype: Any) -> None:
    size = 41
    for place in range(size):
        total, addend = np.arange(size, dtype=np.float64), np.ones(size, dtype)
        addend[place] = value
        peak = kernels.add_rounded(total, addend, SHIFT)
        assert np.array_equal(peak, abs(value), equal_nan=True)
        assert np.array_equal(total, np.where(np.arange(size) == place, value, np.arange(size) + 1), equal_nan=True)
        addend[place], addend[(place + 13) % size] = 1, np.inf
        total[place] = np.nan
        assert math.isnan(kernels.add_rounded(total, addend, SHIFT))
    opposite = np.array([np.inf])
    assert math.isnan(kernels.add_rounded(opposite, np.array([-np.inf], dtype), SHIFT))


def test_what_is_not_added_to_is_not_looked_at() -> None:
    total, addend = np.full(100, np.nan), np.zeros(100, np.float32)
    assert kernels.add_rounded(total, addend, SHIFT) == 0
    total[7], addend[7] = 2.0, -5.0
    assert kernels.add_rounded(total, addend, SHIFT) == 3.0
    assert np.isnan(np.delete(total, 7)).all()


def test_a_total_can_be_added_to_itself() -> None:
    total = np.arange(-20.0, 21.0)
    assert kernels.add_rounded(total, total, SHIFT) == 40
    assert np.array_equal(total, 2 * np.arange(-20.0, 21.0))


def test_read_only_addends_are_accepted_unless_to_be_cleared() -> None:
    total, addend = np.zeros(20), np.ones(20, np.float32)
    addend.flags.writeable = False
    assert kernels.add_rounded(total, addend, SHIFT) == 1
    with pytest.raises(ValueError, match="addend is read-only"):
        kernels.add_rounded(total, addend, SHIFT, clear=True)
    assert np.array_equal(addend, np.ones(20))
    assert np.array_equal(total, np.ones(20))


_GOOD = np.zeros(8)
_LOCKED = np.zeros(8)
_LOCKED.flags.writeable = False


@pytest.mark.parametrize(
    ("total", "addend"),
    [
        (_GOOD, np.ones(7, np.float32)),
        (_GOOD, np.ones(16, np.float32)[::2]),
        (_GOOD, np.ones(8, np.float16)),
        (_GOOD, np.ones(8, np.int32)),
        (_GOOD, np.ones(8, np.complex64)),
        (_GOOD, np.ones((2, 4), np.float32)),
        (_GOOD, [1.0] * 8),
        (np.zeros(8, np.float32), np.ones(8, np.float32)),
        (np.zeros(16)[::2], np.ones(8, np.float32)),
        (np.zeros((2, 4)), np.ones((2, 4), np.float32)),
        (_LOCKED, np.ones(8, np.float32)),
    ],
)
def test_wrong_arrays_are_refused(total: Any, addend: Any) -> None:
    with pytest.raises(ValueError, match=r"^(total|addend) "):
        kernels.add_rounded(total, addend, SHIFT)
    assert not total.any()
