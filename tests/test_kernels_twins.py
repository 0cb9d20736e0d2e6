"""Every compiled kernel against its NumPy twin, on every instruction set this machine has.

The twins sum in float64; the compiled kernels read float32 geometry, whose error is about half * 1e-7 of a voxel.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from kernel_cases import Case, complex_noise, hermitian_volumes, make_case

from hpcsort import kernels
from hpcsort.kernels import _reference

native = pytest.importorskip("hpcsort.kernels._native", reason="the compiled kernels are not built")

ALL_SETS = ["baseline", "avx2", "avx512"]
TOLERANCE = 1e-5  # of the largest value
SIZES = [(0, 5, 1.0), (1, 3, 1.0), (7, 7, 1.5), (3, 13, 2.0), (2, 11, 1.0), (2, 1, 3.0)]
COUNTS = [1, 4, 5, 8, 9, 17, 24, 33]


def instruction_sets() -> Iterator[str]:
    """Step through the instruction sets of this processor, then go back to the best."""
    best = native.instruction_set()
    try:
        for name in ALL_SETS[: ALL_SETS.index(best) + 1]:
            native.use_instruction_set(name)
            assert native.instruction_set() == name
            yield name
    finally:
        native.use_instruction_set(best)


def assert_close(actual: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    assert actual.dtype == expected.dtype
    assert np.isfinite(actual).all()
    scale = np.abs(expected).max(initial=0)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def run_both(name: str, arguments: tuple[Any, ...], *shapes: tuple[int, ...], dtype: Any = np.float32) -> None:
    """Call a kernel and its twin with outputs that start as garbage, and compare."""
    theirs = [np.full(shape, np.nan, dtype) for shape in shapes]
    getattr(_reference, name)(*arguments, *theirs)
    for _ in instruction_sets():
        ours = [np.full(shape, np.nan, dtype) for shape in shapes]
        getattr(native, name)(*arguments, *ours)
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a, b)


def add_both(name: str, arguments: tuple[Any, ...], start: Any) -> None:
    """Call an adding kernel and its twin twice over on the same start, and compare."""
    theirs = start.copy()
    for _ in range(2):
        getattr(_reference, name)(*arguments, theirs)
    for _ in instruction_sets():
        ours = kernels.aligned_empty(start.shape, start.dtype)
        ours[...] = start
        for _ in range(2):
            getattr(native, name)(*arguments, ours)
        assert_close(ours, theirs)


def maps_for(case: Case, count: int) -> Any:
    return kernels.interleave(hermitian_volumes(np.random.default_rng(count), count, case.half)[1])


@pytest.mark.parametrize("size", SIZES)
def test_extract(size: tuple[int, int, float]) -> None:
    case = make_case(*size)
    volume = hermitian_volumes(np.random.default_rng(3), 1, case.half)[1][0]
    shape = case.images.shape
    run_both("extract_sections", (volume, case.rotations, case.px, case.py, case.pad), shape, dtype=np.complex64)


@pytest.mark.parametrize("count", COUNTS)
def test_interleave(count: int) -> None:
    volumes = hermitian_volumes(np.random.default_rng(0), count, 3)[1]
    run_both("interleave", (volumes,), (7, 7, 4, 2, kernels.lane_count(count)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", COUNTS)
def test_score(size: tuple[int, int, float], count: int) -> None:
    case = make_case(*size)
    n = size[0]
    run_both("score_sections", (maps_for(case, count), count, *case.data), (n, count), (n, count))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [*COUNTS, 64])
def test_moments(size: tuple[int, int, float], count: int) -> None:
    case = make_case(*size)
    n, packed = size[0], count * (count + 1) // 2
    run_both("section_moments", (maps_for(case, count), count, *case.data, None), (n, count), (n, packed))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", COUNTS)
def test_subtract(size: tuple[int, int, float], count: int) -> None:
    case = make_case(*size)
    coefficients = np.random.default_rng(8).standard_normal((size[0], count)).astype(np.float32)
    arguments = (maps_for(case, count), count, coefficients, *case.data)
    run_both("subtract_sections", arguments, case.images.shape, dtype=np.complex64)


def class_labels(n: int) -> Any:
    return (np.arange(n, dtype=np.int32) % 4 - 1).astype(np.int32)


@pytest.mark.parametrize("size", SIZES)
def test_leave_one_out(size: tuple[int, int, float]) -> None:
    case, rng = make_case(*size), np.random.default_rng(4)
    volumes = hermitian_volumes(rng, 3, case.half)[1]
    records = kernels.pack_ridge(volumes, rng.uniform(0, 0.6, volumes.shape).astype(np.float32))
    factors = rng.uniform(0, 3, size[0]).astype(np.float32)
    for change in (False, True):
        run_both("leave_one_out_gains", (records, class_labels(size[0]), factors, *case.data, None, change), (size[0],))


@pytest.mark.parametrize("size", SIZES)
def test_insert(size: tuple[int, int, float]) -> None:
    case, rng = make_case(*size), np.random.default_rng(4)
    start = rng.standard_normal((3, 2 * case.half + 1, 2 * case.half + 1, case.half + 1, 4)).astype(np.float32)
    weights = rng.uniform(0, 2, size[0]).astype(np.float32)
    labels = class_labels(size[0])
    arguments = (case.images, case.ctfs, case.rotations, labels, weights, case.px, case.py, case.pad, None)
    add_both("insert_sections", arguments, start)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("moments", "weights"), [(1, 1), (8, 92), (3, 0), (0, 7), (13, 150)])
def test_backproject(size: tuple[int, int, float], moments: int, weights: int) -> None:
    case, rng = make_case(*size), np.random.default_rng(4)
    z = rng.standard_normal((size[0], moments)).astype(np.float32)
    q = rng.standard_normal((size[0], weights)).astype(np.float32)
    length = kernels.moment_record_length(moments, weights)
    start = rng.standard_normal((2 * case.half + 1, 2 * case.half + 1, case.half + 1, length)).astype(np.float32)
    arguments = (case.images, case.ctfs, case.rotations, z, q, case.px, case.py, case.pad, None)
    add_both("backproject_moments", arguments, start)


def test_chosen_rows_are_those_particles() -> None:
    case, rng, rows = make_case(5, 6, 1.0), np.random.default_rng(2), np.array([3, 0, 3, 1], np.int32)
    part = Case(case.images[rows], case.ctfs[rows], case.rotations[rows], *case[3:])
    maps, z, q = maps_for(case, 9), rng.random((4, 3), np.float32), rng.random((4, 5), np.float32)
    for one, other in zip(
        kernels.section_moments(maps, 9, *case.data, rows=rows), kernels.section_moments(maps, 9, *part.data),
        strict=True,
    ):  # fmt: skip
        assert np.array_equal(one, other)
    sums = np.zeros((2, *maps.shape[:3], kernels.moment_record_length(3, 5)), np.float32)
    kernels.backproject_moments(*case.data[:3], z, q, *case.data[3:], sums[0], rows)
    kernels.backproject_moments(*part.data[:3], z, q, *part.data[3:], sums[1])
    assert np.array_equal(sums[0], sums[1])
    assert sums.any()


def test_entries_name_particles_of_several_classes() -> None:
    case, rng = make_case(4, 6, 1.0), np.random.default_rng(2)
    rows, labels = np.array([2, 0, 2, 3], np.int32), np.array([1, 0, 0, -1], np.int32)
    part = Case(case.images[rows], case.ctfs[rows], case.rotations[rows], *case[3:])
    weights = rng.random(4, np.float32)
    shape = (2, 2 * case.half + 1, 2 * case.half + 1, case.half + 1)
    sums = np.zeros((2, *shape, 4), np.float32)
    kernels.insert_sections(*case.data[:3], labels, weights, *case.data[3:], sums[0], rows)
    kernels.insert_sections(*part.data[:3], labels, weights, *part.data[3:], sums[1])
    assert np.array_equal(sums[0], sums[1])
    assert sums.any()
    records = rng.random((*shape, 4), np.float32)
    found = kernels.leave_one_out_gains(records, None, labels, weights, *case.data, rows=rows)
    assert np.array_equal(found, kernels.leave_one_out_gains(records, None, labels, weights, *part.data))
    with_itself = kernels.leave_one_out_gains(records, None, labels, 0 * weights, *part.data)
    change = kernels.leave_one_out_gains(records, None, labels, weights, *part.data, change=True)
    np.testing.assert_allclose(change, found - with_itself, rtol=1e-4, atol=1e-4)


def latent_moments(n: int, size: int) -> tuple[Any, Any]:
    """Moments of random predictions, packed."""
    predicted = 2.0 * complex_noise(np.random.default_rng([n, size]), n, 30, size)
    gram = np.einsum("npa,npb->nab", predicted.conj(), predicted).real
    linear = 3.0 * np.random.default_rng(size).standard_normal((n, size))
    return linear.astype(np.float32), np.ascontiguousarray(gram[:, *np.tril_indices(size)], np.float32)


LATENTS = [(0, 3), (1, 1), (7, 7), (8, 12), (9, 15), (17, 31)]


@pytest.mark.parametrize(("n", "size"), LATENTS)
def test_latent_posteriors(n: int, size: int) -> None:
    run_both(
        "latent_posteriors", latent_moments(n, size), (n, size), (n, size * (size + 1) // 2), dtype=np.float64
    )  # fmt: skip


@pytest.mark.parametrize(("n", "size"), LATENTS)
@pytest.mark.parametrize("fixed", [0, 1, 7])
def test_marginal_moments(n: int, size: int, fixed: int) -> None:
    fixed = min(fixed, size)
    free = size - fixed
    run_both(
        "marginal_moments", (*latent_moments(n, size), fixed, 4.0), (n, free), (n, free * (free + 1) // 2), (n, fixed),
        (n, free, fixed), (n, 2), dtype=np.float64,
    )  # fmt: skip


@pytest.mark.parametrize(("n", "size"), LATENTS)
@pytest.mark.parametrize("fixed", [0, 1, 7])
def test_moment_weights(n: int, size: int, fixed: int) -> None:
    fixed = min(fixed, size)
    free, rng = size - fixed, np.random.default_rng(1)
    mean, covariance = kernels.latent_posteriors(*latent_moments(n, size))
    transform = np.zeros((size, size))
    transform[np.arange(fixed), np.arange(fixed)] = rng.uniform(0.5, 2, fixed)
    transform[fixed:, fixed:] = rng.standard_normal((free, free))
    run_both(
        "moment_weights", (mean, covariance, fixed, transform), (n, free), (n, free * (free + 1) // 2 + free * fixed)
    )  # fmt: skip


def test_particles_side_by_side_do_not_touch_each_other() -> None:
    # Eight particles share a vector: each must come out as if alone, to the bit.
    linear, gram = latent_moments(13, 9)
    whole = kernels.marginal_moments(linear, gram, 4, 4.0), kernels.latent_posteriors(linear, gram)
    for i in range(13):
        alone = kernels.marginal_moments(linear[i : i + 1], gram[i : i + 1], 4, 4.0)
        assert np.array_equal(alone.precision[0], whole[0].precision[i])
        assert np.array_equal(alone.evidence[0], whole[0].evidence[i])
        for one, other in zip(kernels.latent_posteriors(linear[i : i + 1], gram[i : i + 1]), whole[1], strict=True):
            assert np.array_equal(one[0], other[i])


def test_large_sums_stay_accurate() -> None:
    # 4,500 pixels of equal sign: float32 running sums would lose three more digits than blocks do.
    case = make_case(1, 53, 1.0)
    volumes = np.ones((5, 2 * case.half + 1, 2 * case.half + 1, case.half + 1), np.complex64)
    case.images[...], case.ctfs[...] = 1 + 0j, 1
    cross, power = kernels.score_sections(kernels.interleave(volumes), 5, *case.data)
    np.testing.assert_allclose(cross, case.px.size, rtol=1e-6)
    np.testing.assert_allclose(power, case.px.size, rtol=1e-6)


def test_same_bits_in_any_batch() -> None:
    case = make_case(7, 9, 1.0)
    maps = maps_for(case, 5)
    whole = kernels.score_sections(maps, 5, *case.data)
    for lo, hi in pairwise([0, 1, 4, 7]):
        part = Case(case.images[lo:hi], case.ctfs[lo:hi], case.rotations[lo:hi], *case[3:])
        for a, b in zip(kernels.score_sections(maps, 5, *part.data), whole, strict=True):
            assert np.array_equal(a, b[lo:hi])


def test_unaligned_volumes_give_the_same_bits() -> None:
    # A window may start anywhere.
    case = make_case(2, 6, 1.0)
    maps = maps_for(case, 5)
    raw = np.empty(maps.size + 1, np.float32)
    shifted = raw[1:].reshape(maps.shape)
    shifted[...] = maps
    assert shifted.ctypes.data % 64 != maps.ctypes.data % 64
    for a, b in zip(
        kernels.score_sections(maps, 5, *case.data), kernels.score_sections(shifted, 5, *case.data), strict=True
    ):
        assert np.array_equal(a, b)


def test_read_only_inputs_are_accepted() -> None:
    case = make_case(2, 6, 1.0)
    maps = maps_for(case, 5)
    expected = kernels.score_sections(maps, 5, *case.data)
    for array in (maps, *case[:5]):
        array.flags.writeable = False
    for a, b in zip(kernels.score_sections(maps, 5, *case.data), expected, strict=True):
        assert np.array_equal(a, b)


def test_subtract_in_place() -> None:
    case = make_case(3, 6, 1.0)
    maps, coefficients = maps_for(case, 5), np.ones((3, 5), np.float32)
    expected = kernels.subtract_sections(maps, 5, coefficients, *case.data)
    images = complex_noise(np.random.default_rng(0), *case.images.shape)
    images[...] = case.images
    kernels.subtract_sections(maps, 5, coefficients, images, *case.data[1:], out=images)
    assert np.array_equal(images, expected)
