"""Chunks, random streams and exact sums: nothing depends on ranks or order."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcsort.parallel import ExactSum, SerialComm, cut_chunks, deal_chunks, owned_rows, row_counts, stream

_WEIGHTS = st.lists(st.integers(0, 50), max_size=60)


@given(_WEIGHTS, st.floats(0.5, 500))
def test_chunks_cover_all_rows_once(weights: list[int], target: float) -> None:
    chunks = cut_chunks(weights, target)
    assert [row for start, stop in chunks for row in range(start, stop)] == list(range(len(weights)))
    assert all(stop > start for start, stop in chunks)
    loads = [sum(weights[start:stop]) for start, stop in chunks]
    mean = sum(weights) / max(len(weights), 1)
    assert all(load <= max(target, mean) + max(weights) + 1e-9 for load in loads)


def test_chunks_of_even_rows_are_even() -> None:
    assert cut_chunks(np.ones(12), 3) == [(0, 3), (3, 6), (6, 9), (9, 12)]
    assert cut_chunks(np.zeros(4), 3) == [(0, 4)]
    assert cut_chunks([], 3) == []
    with pytest.raises(ValueError, match="positive"):
        cut_chunks([1], 0)
    with pytest.raises(ValueError, match="not negative"):
        cut_chunks([-1], 1)


@given(_WEIGHTS, st.integers(1, 80))
def test_dealt_chunks_are_contiguous_and_balanced(weights: list[int], ranks: int) -> None:
    dealt = deal_chunks(weights, ranks)
    assert len(dealt) == ranks
    assert [chunk for owned in dealt for chunk in owned] == list(range(len(weights)))
    if weights and sum(weights):
        loads = [sum(weights[chunk] for chunk in owned) for owned in dealt]
        assert max(loads) <= sum(weights) / ranks + max(weights) + 1e-9


def test_equal_chunks_are_dealt_evenly() -> None:
    assert deal_chunks(np.ones(4), 4) == [[0], [1], [2], [3]]
    assert sorted(map(len, deal_chunks(np.ones(10), 4))) == [2, 2, 3, 3]
    assert sorted(map(len, deal_chunks(np.ones(2), 5))) == [0, 0, 0, 1, 1]
    with pytest.raises(ValueError, match="at least one rank"):
        deal_chunks([1], 0)


def test_rows_of_the_ranks_follow_each_other() -> None:
    chunks = cut_chunks(np.arange(101), 97)
    dealt = deal_chunks([stop - start for start, stop in chunks], 7)
    rows = [owned_rows(chunks, owned) for owned in dealt]
    assert rows[0][0] == 0
    assert rows[-1][1] == 101
    assert all(left[1] == right[0] for left, right in pairwise(rows))
    assert sum(row_counts(chunks, dealt)) == 101
    assert owned_rows(chunks, []) == (0, 0)
    with pytest.raises(ValueError, match="follow"):
        owned_rows(chunks, [0, 2])


def test_streams_are_told_apart_and_repeat() -> None:
    places = [(), (0,), (1,), ("1",), (0, 1), (1, 0), ("ab", "c"), ("a", "bc"), ("abc",), (np.int64(12),), (-1,)]
    draws = [stream(7, *place).integers(0, 1 << 62) for place in places] + [stream(8).integers(0, 1 << 62)]
    assert len(set(draws)) == len(draws)
    assert stream(7, 12).integers(0, 1 << 62) == draws[9]
    with pytest.raises(TypeError):
        stream(7, 1.5)  # type: ignore[arg-type]


def test_streams_are_the_same_on_every_machine() -> None:
    # written down once: a changed hash would silently change every published result
    assert stream(1, "run", 2).integers(0, 1000, 4).tolist() == [813, 665, 797, 696]


def _addends(seed: int, count: int, dtype: type = np.float64) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(count, 33)) * 10.0 ** draw.integers(-9, 4, (count, 1))).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_order_and_grouping_do_not_change_a_bit(dtype: type, seed: int) -> None:
    blocks = _addends(seed, 40, dtype)
    bound = 64 * float(np.abs(blocks).max())
    forward, shuffled, left, right = (ExactSum(33, bound) for _ in range(4))
    for block in blocks:
        forward.add(block)
    order = np.random.default_rng(seed).permutation(40)
    for number, block in enumerate(blocks[order]):
        shuffled.add(block)
        (left if number % 3 else right).add(block)
    joined = ExactSum(33, bound)
    joined.add(left.total)
    joined.add(right.total)
    assert forward.total.tobytes() == shuffled.total.tobytes() == joined.total.tobytes()
    assert forward.join(SerialComm()).tobytes() == joined.total.tobytes()


def test_plain_addition_would_depend_on_the_order() -> None:
    blocks = _addends(3, 40)
    forward, backward = np.zeros(33), np.zeros(33)
    for one, other in zip(blocks, blocks[::-1], strict=True):
        forward += one
        backward += other
    assert forward.tobytes() != backward.tobytes()


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 32_768, 32_769])
def test_the_error_is_below_half_a_quantum_per_addend(size: int) -> None:
    draw = np.random.default_rng(size)
    blocks = draw.normal(size=(11, size))
    total = ExactSum(size, bound=100.0)
    assert 2.0**-53 * 100 < total.quantum <= 2.0**-50 * 100
    for block in blocks:
        total.add(block)
    for element in range(0, size, max(size // 50, 1)):
        assert abs(total.total[element] - math.fsum(blocks[:, element])) <= 11 * total.quantum / 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(seed=st.integers(0, 10_000), exponent=st.integers(-40, 40))
@settings(max_examples=25, deadline=None)
def test_the_total_is_that_of_the_rounded_addends(dtype: type, seed: int, exponent: int) -> None:
    blocks = _addends(seed, 20, dtype) * dtype(2.0**exponent)
    total = ExactSum(33, bound=64 * float(np.abs(blocks).max()))
    for block in blocks:
        total.add(block)
    # round() takes a tie to even, and a power of two scales without rounding
    rounded = [[total.quantum * round(x / total.quantum) for x in map(float, column)] for column in blocks.T]
    assert total.total.tolist() == [math.fsum(column) for column in rounded]


def test_ties_depend_on_the_addend_alone() -> None:
    # q/2 rounds to even: 0; 1.5 q to 2 q. Adding to an odd total must not round q/2 up.
    total = ExactSum(1, bound=1.0)
    for multiple in (1.0, 0.5, 0.5, 1.5):
        total.add(np.array([multiple * total.quantum]))
    assert total.total[0] == 3 * total.quantum


def test_index_adds_to_one_row() -> None:
    total = ExactSum((3, 2, 2), bound=10.0)
    total.add(np.full((2, 2), 1.5, np.float32), index=1)
    total.add(np.full((2, 2), 0.5), index=-1)
    assert total.total[:, 0, 0].tolist() == [0.0, 1.5, 0.5]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_can_be_cleared(dtype: type) -> None:
    total = ExactSum((3, 5), bound=10.0)
    whole = np.ones((3, 5), dtype)
    records = np.ones((3, 8), dtype)
    total.add(whole, clear=True)
    total.add(records[:, :5], clear=True)
    total.add(records[2, 3:], index=2, clear=True)
    assert not whole.any()
    assert records.tolist() == [[0] * 5 + [1] * 3] * 2 + [[0] * 8]
    assert total.total.tolist() == [[2] * 5] * 2 + [[2, 2, 3, 3, 3]]


def test_read_only_blocks_can_be_added_but_not_cleared() -> None:
    total, block = ExactSum((3, 2), bound=10.0), np.ones((3, 4), np.float32)
    block.flags.writeable = False
    for part in (block[:, :2], np.ascontiguousarray(block[:, :2])):
        part.flags.writeable = False
        total.add(part)
        with pytest.raises(ValueError, match="read-only"):
            total.add(part, clear=True)
    assert total.total.tolist() == [[2, 2]] * 3


def test_every_addition_looks_at_the_bound() -> None:
    total = ExactSum((40,), bound=10.0)
    block = np.zeros(40)
    block[33] = 3.0
    for _ in range(3):
        total.add(block)
    with pytest.raises(RuntimeError, match="reached 12 where at most 10"):
        total.add(block)


@pytest.mark.parametrize("value", [11.0, -11.0, 1e300, np.inf, np.nan])
def test_what_exceeds_the_bound_is_refused(value: float) -> None:
    total = ExactSum((5,), bound=10.0)
    with pytest.raises(RuntimeError, match="announced"):
        total.add(np.array([0, 0, value, 0, 0]))


def test_wrong_use_of_exact_sums_is_refused() -> None:
    for bound in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="positive number"):
            ExactSum(3, bound)
    with pytest.raises(ValueError, match="shape"):
        ExactSum((2, 3), 1.0).add(np.zeros(3))
    with pytest.raises(TypeError, match="complex64"):
        ExactSum(3, 1.0).add(np.zeros(3, np.complex64))


@pytest.mark.parametrize("bound", [64.0, 1e9])
def test_float32_blocks_are_rounded_in_float64(bound: float) -> None:
    # One float32 step of the shift is some 2^28 quanta: added in float32, every block would round to nothing.
    draw = np.random.default_rng(2)
    blocks = draw.normal(size=(17, 40)).astype(np.float32)
    total = ExactSum(40, bound)
    for block in blocks:
        total.add(block)
    for element in range(40):
        assert abs(total.total[element] - math.fsum(blocks[:, element].tolist())) <= 17 * total.quantum / 2
