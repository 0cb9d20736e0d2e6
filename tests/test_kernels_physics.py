"""Both kernel implementations against definitions: direct Fourier sums, full volumes, explicit reconstructions."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from kernel_cases import (
    Case,
    complex_noise,
    generic_rotations,
    half_plane,
    hat_weights,
    hermitian_volumes,
    lattice_rotations,
    make_case,
    points_of,
)
from scipy.ndimage import map_coordinates

from hpcsort import kernels

MODULES = ("extract", "insert", "layout", "moments", "score", "subtract")
ROUNDING = 2e-6  # of the largest value: float32 sums of a few hundred terms


@pytest.fixture(params=["_reference", "_native"], autouse=True)
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    chosen = pytest.importorskip(f"hpcsort.kernels.{request.param}", reason="the compiled kernels are not built")
    for module in MODULES:
        monkeypatch.setattr(importlib.import_module(f"hpcsort.kernels.{module}"), "implementation", chosen)
    return request.param


# Direct Fourier sums -------------------------------------------------------------------------------------------------

BOX = 16
POSITIONS = np.array([[1.3, -2.1, 0.4], [-3.2, 0.6, 2.7], [2.2, 3.1, -1.4]])  # x, y, z in pixels from the centre
MASSES = np.array([1.0, 0.7, 1.6])


def direct_sum(frequencies: Any, masses: Any = MASSES) -> Any:
    """Transform of the point masses at frequencies (..., 3) as x, y, z in cycles per box."""
    return np.exp(-2j * np.pi / BOX * (frequencies @ POSITIONS.T)) @ masses


def half_transform(half: int, pad: float, masses: Any = MASSES) -> Any:
    z, y, x = np.meshgrid(*[np.arange(-half, half + 1.0)] * 2, np.arange(half + 1.0), indexing="ij")
    return direct_sum(np.stack([x, y, z], axis=-1) / pad, masses).astype(np.complex64)


def direct_sections(rotations: Any, px: Any, py: Any) -> Any:
    a = rotations.astype(np.float64)
    return direct_sum(px[:, None] * a[:, None, 0] + py[:, None] * a[:, None, 1])


@pytest.mark.parametrize("radius", [3, 7, 8])
def test_lattice_sections_are_direct_fourier_sums(radius: int) -> None:
    rotations, (px, py) = lattice_rotations(), half_plane(radius)
    volume = half_transform(kernels.half_width(radius, 1), 1)
    sections = kernels.extract_sections(volume, rotations, px, py, 1.0)
    expected = direct_sections(rotations, px, py)
    np.testing.assert_allclose(sections, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_generic_sections_converge_with_padding() -> None:
    # In real space trilinear interpolation multiplies by sinc^2; what remains after dividing by it are aliases, which
    # fall with the square of the padding.
    rotations, (px, py) = generic_rotations(12), half_plane(7)
    expected = direct_sections(rotations, px, py)
    errors = []
    for pad in (1, 2, 4):
        masses = MASSES / np.prod(np.sinc(POSITIONS / (pad * BOX)) ** 2, axis=1)
        sections = kernels.extract_sections(
            half_transform(kernels.half_width(7, pad), pad, masses), rotations, px, py, pad
        )
        errors.append(np.linalg.norm(sections - expected) / np.linalg.norm(expected))
    assert errors[0] < 0.1
    assert errors[1] < errors[0] / 3
    assert errors[2] < errors[1] / 3
    assert errors[2] < 0.005


def test_sections_of_real_maps_have_friedel_symmetry() -> None:
    case = make_case(9, 7, 1.5)
    volume = hermitian_volumes(np.random.default_rng(1), 1, case.half)[1][0]
    there = kernels.extract_sections(volume, case.rotations, case.px, case.py, case.pad)
    back = kernels.extract_sections(volume, case.rotations, -case.px, -case.py, case.pad)
    np.testing.assert_allclose(back, there.conj(), rtol=0, atol=ROUNDING * np.abs(there).max())


# Full volumes --------------------------------------------------------------------------------------------------------


def edge_rotations(n: int) -> Any:
    """Generic views with lattice ones among them, whose points lie on x = 0 and on the other lattice planes."""
    rotations = generic_rotations(n)
    rotations[::2] = lattice_rotations()[1 : 1 + len(rotations[::2])]
    return rotations


@pytest.mark.parametrize(("radius", "pad"), [(3, 1.0), (5, 1.5), (4, 2.0)])
def test_extract_is_interpolation_in_the_full_volume(radius: int, pad: float) -> None:
    case = make_case(8, radius, pad, edge_rotations(8))
    full, halves = hermitian_volumes(np.random.default_rng(1), 1, case.half)
    sections = kernels.extract_sections(halves[0], case.rotations, case.px, case.py, pad)
    for i in range(8):
        expected = map_coordinates(full[0].astype(np.complex128), points_of(case, i).T + case.half, order=1)
        np.testing.assert_allclose(sections[i], expected, rtol=0, atol=ROUNDING * 4)


def insert_everything(case: Case, classes: int, labels: Any, weights: Any) -> Any:
    sums = kernels.aligned_empty((classes, *half_shape(case), 4), np.float32)
    sums[...] = 0
    kernels.insert_sections(*case.data[:3], labels, weights, *case.data[3:], sums)
    kernels.complete_friedel(sums.view(np.complex64)[..., 0], True)
    kernels.complete_friedel(sums[..., 2], False)
    return sums


def half_shape(case: Case) -> tuple[int, int, int]:
    return 2 * case.half + 1, 2 * case.half + 1, case.half + 1


@pytest.mark.parametrize(("radius", "pad", "n"), [(3, 1.0, 1), (4, 1.5, 7), (3, 2.0, 6), (4, 1.0, 0)])
def test_insert_equals_every_pixel_with_its_mate_in_a_full_volume(radius: int, pad: float, n: int) -> None:
    case = make_case(n, radius, pad, edge_rotations(n))
    labels = (np.arange(n, dtype=np.int32) % 3 - 1).astype(np.int32)
    weights = np.linspace(0.5, 2, n).astype(np.float32)
    sums = insert_everything(case, 2, labels, weights)
    side = 2 * case.half + 1
    data, power = np.zeros((2, side, side, side), complex), np.zeros((2, side, side, side))
    for i in np.flatnonzero(labels >= 0):
        for sign in (1, -1):
            hats = hat_weights(sign * points_of(case, i), case.half)
            values = case.ctfs[i] * (case.images[i] if sign == 1 else case.images[i].conj())
            data[labels[i]] += weights[i] * np.tensordot(values, hats, 1)
            power[labels[i]] += weights[i] * np.tensordot(case.ctfs[i] ** 2, hats, 1)
    tolerance = ROUNDING * max(1, np.abs(data).max())
    np.testing.assert_allclose(sums.view(np.complex64)[..., 0], data[..., case.half :], rtol=0, atol=tolerance)
    np.testing.assert_allclose(sums[..., 2], power[..., case.half :], rtol=0, atol=tolerance)
    assert not sums[..., 3].any()


@pytest.mark.parametrize("pad", [1.0, 2.0])
def test_insert_is_the_adjoint_of_extract(pad: float) -> None:
    case = make_case(8, 7, pad, edge_rotations(8))
    volume = hermitian_volumes(np.random.default_rng(2), 1, case.half)[1][0]
    sums = insert_everything(case, 1, np.zeros(8, np.int32), np.ones(8, np.float32)).view(np.complex64)[0, ..., 0]
    sections = kernels.extract_sections(volume, case.rotations, case.px, case.py, pad)
    in_images = 2 * (case.ctfs * case.images.conj() * sections).real.sum(dtype=np.float64)
    products = (sums.conj() * volume).real.astype(np.float64)
    in_volume = products[..., 0].sum() + 2 * products[..., 1:].sum()
    scale = np.linalg.norm(case.images) * np.linalg.norm(sections)
    assert abs(in_images) > 1e-3 * scale
    assert abs(in_volume - in_images) < 1e-6 * scale


def test_backproject_is_one_insertion_per_moment() -> None:
    case, rng = make_case(7, 5, 1.5, edge_rotations(7)), np.random.default_rng(3)
    z, q = rng.standard_normal((7, 3)).astype(np.float32), rng.standard_normal((7, 5)).astype(np.float32)
    records = np.zeros((*half_shape(case), kernels.moment_record_length(3, 5)), np.float32)
    kernels.backproject_moments(*case.data[:3], z, q, *case.data[3:], records)
    kernels.complete_friedel_records(records, 3)
    labels = np.zeros(7, np.int32)
    for j in range(3):
        single = insert_everything(case, 1, labels, np.ascontiguousarray(z[:, j]))[0]
        np.testing.assert_allclose(records[..., j], single[..., 0], rtol=0, atol=1e-5)
        np.testing.assert_allclose(records[..., 3 + j], single[..., 1], rtol=0, atol=1e-5)
    for k in range(5):
        single = insert_everything(case, 1, labels, np.ascontiguousarray(q[:, k]))[0]
        np.testing.assert_allclose(records[..., 6 + k], single[..., 2], rtol=0, atol=1e-5)
    assert not records[..., 11:].any()


# Sums over pixels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5, 11])
def test_scores_moments_and_residuals_agree_with_extracted_sections(count: int) -> None:
    case = make_case(5, 7, 1.0)
    maps = hermitian_volumes(np.random.default_rng(count), count, case.half)[1]
    mixed = kernels.interleave(maps)
    sections = np.stack([kernels.extract_sections(v, case.rotations, case.px, case.py, case.pad) for v in maps], axis=2)
    predicted = case.ctfs[..., None] * sections.astype(np.complex128)
    cross = np.einsum("npk,np->nk", predicted.conj(), case.images).real
    gram = np.einsum("npa,npb->nab", predicted.conj(), predicted).real
    atol = 4e-6 * gram.max()
    scores = kernels.score_sections(mixed, count, *case.data)
    np.testing.assert_allclose(scores[0], cross, rtol=0, atol=atol)
    np.testing.assert_allclose(scores[1], np.einsum("naa->na", gram), rtol=0, atol=atol)
    linear, packed = kernels.section_moments(mixed, count, *case.data)
    np.testing.assert_allclose(linear, cross, rtol=0, atol=atol)
    for a in range(count):
        for b in range(a + 1):
            np.testing.assert_allclose(packed[:, a * (a + 1) // 2 + b], gram[:, a, b], rtol=0, atol=atol)
    coefficients = np.random.default_rng(0).standard_normal((5, count)).astype(np.float32)
    residual = kernels.subtract_sections(mixed, count, coefficients, *case.data)
    expected = case.images - np.einsum("npk,nk->np", predicted, coefficients)
    np.testing.assert_allclose(residual, expected, rtol=0, atol=4e-6 * np.abs(expected).max())


def test_power_of_identical_prediction_is_its_cross_term() -> None:
    # A noiseless particle: cross = power = |y|^2.
    case = make_case(3, 6, 1.0)
    maps = hermitian_volumes(np.random.default_rng(7), 1, case.half)[1]
    images = case.ctfs * kernels.extract_sections(maps[0], case.rotations, case.px, case.py, case.pad)
    cross, power = kernels.score_sections(kernels.interleave(maps), 1, images, *case.data[1:])
    energy = (np.abs(images.astype(np.complex128)) ** 2).sum(axis=1)
    np.testing.assert_allclose(cross[:, 0], energy, rtol=3e-6)
    np.testing.assert_allclose(power[:, 0], energy, rtol=3e-6)


@pytest.mark.parametrize(("radius", "pad"), [(5, 1.0), (3, 2.0)])
def test_leave_one_out_equals_reconstruction_without_the_particle(radius: int, pad: float) -> None:
    # On lattice views each pixel meets one voxel, where the leverage is exact.
    views = lattice_rotations()
    case = make_case(24, radius, pad, views)
    labels, prior = (np.arange(24, dtype=np.int32) % 3).astype(np.int32), 0.8
    labels[5] = -1
    weights = np.random.default_rng(1).uniform(0.5, 1.5, 24).astype(np.float32)

    def class_maps(members: Any) -> tuple[Any, Any]:
        sums = insert_everything(case, 3, members, weights)
        ridge = 1 / (sums[..., 2] + np.float32(prior))
        return np.ascontiguousarray(sums.view(np.complex64)[..., 0] * ridge), ridge

    volumes, ridge = class_maps(labels)
    gains = kernels.leave_one_out_gains(volumes, ridge, labels, weights, *case.data)
    packed = kernels.leave_one_out_gains(kernels.pack_ridge(volumes, ridge), None, labels, weights, *case.data)
    assert np.array_equal(gains, packed)
    for i in range(24):
        if labels[i] < 0:
            assert gains[i] == 0
            continue
        others = labels.copy()
        others[i] = -1
        without = class_maps(others)[0][labels[i]]
        section = kernels.extract_sections(without, views[i : i + 1], case.px, case.py, pad)[0]
        residual = case.images[i] - case.ctfs[i] * section
        expected = (np.abs(case.images[i]) ** 2 - np.abs(residual) ** 2).sum(dtype=np.float64)
        assert gains[i] == pytest.approx(expected, abs=1e-5 * np.vdot(case.images[i], case.images[i]).real.item())


def test_leverage_is_capped() -> None:
    # A voxel seen by nobody else: h would be 1 without a prior, and the residual infinite.
    case = make_case(1, 3, 1.0, lattice_rotations()[:1])
    volumes = np.zeros((1, *half_shape(case)), np.complex64)
    ridge = np.full(volumes.shape, 1e6, np.float32)
    case.ctfs[...] = 1
    gain = kernels.leave_one_out_gains(volumes, ridge, np.zeros(1, np.int32), np.ones(1, np.float32), *case.data)
    energy = (np.abs(case.images) ** 2).sum()
    assert gain[0] == pytest.approx(energy * (1 - 100), rel=1e-4)


# Layout and arguments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "lanes"), [(1, 4), (4, 4), (5, 8), (8, 8), (9, 16), (17, 24)])
def test_interleaved_volumes_come_apart_again(count: int, lanes: int) -> None:
    volumes = complex_noise(np.random.default_rng(0), count, 7, 7, 4)
    mixed = kernels.interleave(volumes)
    assert mixed.shape == (7, 7, 4, 2, lanes)
    assert mixed.ctypes.data % 64 == 0
    assert np.array_equal(np.moveaxis(mixed[..., 0, :count] + 1j * mixed[..., 1, :count], -1, 0), volumes)
    assert not mixed[..., count:].any()


@pytest.mark.parametrize(("radius", "pad", "half"), [(3, 1, 4), (31, 1, 32), (5, 1.5, 9), (4, 2, 9)])
def test_half_width(radius: float, pad: float, half: int) -> None:
    assert kernels.half_width(radius, pad) == half


def _bad_arguments() -> dict[str, dict[str, Any]]:
    case = make_case(3, 5, 1.0)
    far = case.px.copy()
    far[0] = case.half
    stretched, missing = 1.1 * case.rotations, case.rotations.copy()
    missing[1, 0, 0] = np.nan
    return {
        "dtype": {"images": case.images.astype(np.complex128)},
        "strided": {"ctfs": np.asfortranarray(case.ctfs)},
        "pixels": {"ctfs": np.ascontiguousarray(case.ctfs[:, 1:])},
        "particles": {"rotations": case.rotations[:2]},
        "outside": {"px": far},
        "pad": {"pad": 0.5},
        "stretched": {"rotations": stretched.astype(np.float32)},
        "nan": {"rotations": missing},
        "count": {"count": 9},
        "list": {"px": [1.0]},
        "volume": {"interleaved": np.zeros((5, 5, 5, 2, 8), np.float32)},
        "lanes": {"interleaved": np.zeros((13, 13, 7, 2, 6), np.float32)},
    }


@pytest.mark.parametrize("name", list(_bad_arguments()))
def test_wrong_arguments_are_refused(name: str) -> None:
    case = make_case(3, 5, 1.0)
    maps = kernels.interleave(hermitian_volumes(np.random.default_rng(0), 5, case.half)[1])
    arguments = {"interleaved": maps, "count": 5, **case._asdict()}
    del arguments["half"]
    kernels.score_sections(**arguments)
    with pytest.raises(ValueError, match=r"\w"):
        kernels.score_sections(**(arguments | _bad_arguments()[name]))


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, -2, 0], [0, 1]])
def test_labels_outside_the_classes_are_refused(labels: list[int]) -> None:
    case = make_case(3, 5, 1.0)
    sums = np.zeros((2, *half_shape(case), 4), np.float32)
    with pytest.raises(ValueError, match="labels"):
        kernels.insert_sections(
            *case.data[:3], np.array(labels, np.int32), np.ones(3, np.float32), *case.data[3:], sums
        )
    assert not sums.any()


def test_read_only_output_is_refused() -> None:
    case = make_case(1, 5, 1.0)
    out = np.zeros(case.images.shape, np.complex64)
    out.flags.writeable = False
    volume = np.zeros(half_shape(case), np.complex64)
    with pytest.raises(ValueError, match="read-only"):
        kernels.extract_sections(volume, case.rotations, case.px, case.py, case.pad, out)
    volume.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        kernels.complete_friedel(volume, True)
