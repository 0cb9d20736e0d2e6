"""Particles with several poses: insertion is the weighted sum over poses, checked against direct sums."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reconstruction_cases import IDENTITY, density, write_particles_of

from hpcsort.geometry import point_group, relion_angles, relion_matrices
from hpcsort.io import ImageReader, ParticleTable, Smears, read_particles
from hpcsort.optics import ctf
from hpcsort.parallel import SerialComm
from hpcsort.reconstruction import GroupMaps, expand_symmetry, reconstruct_groups
from hpcsort.reconstruction.insertion import Inserter
from hpcsort.volumes import BandGrid

_RADIUS = 3


def _table(folder: Path, box: int, count: int) -> ParticleTable:
    return read_particles(write_particles_of(folder, [20.0 * density(box, 2.5, seed=box)], np.zeros(count, np.int64)))


def _smears(table: ParticleTable, counts: list[int], seed: int = 0) -> Smears:
    """Random poses; the likeliest is the table's, and every third pose shares its orientation with the one before."""
    draw = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(table)), counts)
    angles = draw.uniform(-180, 180, (len(owner), 3))
    angles[2::3] = angles[1:-1:3][: len(angles[2::3])]
    shifts = table.shifts_px[owner] + draw.normal(0, 1, (len(owner), 2))
    weight = draw.uniform(0.1, 1.0, len(owner))
    first = np.concatenate([[0], np.cumsum(counts)])[:-1]
    angles[first], shifts[first], weight[first] = table.angles_deg, table.shifts_px, 1.5
    return Smears.of_lists(owner, angles, shifts, weight)


def _sums(table: ParticleTable, operators: np.ndarray = IDENTITY, pad: int = 2) -> tuple[np.ndarray, np.ndarray]:
    assert table.box_px is not None
    work = Inserter(SerialComm(), table, BandGrid(table.box_px, table.box_px // 2 - 1, pad), _RADIUS, operators)
    joined = work.sum_slots([np.arange(len(table))])[0].join(SerialComm())
    assert joined is not None
    return joined


def _single(table: ParticleTable, particle: int, pose: int) -> ParticleTable:
    """One particle at one of its poses, without smears."""
    assert table.smears is not None
    smears = table.smears
    return replace(
        table.subset([particle]),
        angles_deg=smears.angles_deg[pose : pose + 1],
        shifts_px=smears.shifts_px[pose : pose + 1],
        smears=None,
    )


def _maps(table: ParticleTable, symmetry: np.ndarray = IDENTITY) -> GroupMaps:
    maps = reconstruct_groups(
        SerialComm(), table, [np.arange(len(table))], half=np.arange(len(table)) % 2, radius_px=5, mask=None,
        symmetry=symmetry,
    )  # fmt: skip
    assert maps is not None
    return maps[0]


@pytest.mark.parametrize(("box", "pad"), [(9, 2), (10, 1)])
def test_smeared_insertion_is_the_weighted_sum_of_single_poses(tmp_path: Path, box: int, pad: int) -> None:
    table = _table(tmp_path, box, 4)
    table = replace(table, smears=_smears(table, [1, 4, 2, 7]))
    assert table.smears is not None
    got = _sums(table, pad=pad)
    expected = [np.zeros(part.shape, np.complex128) for part in got]
    for pose, (particle, weight) in enumerate(zip(table.smears.owner, table.smears.weight, strict=True)):
        for total, part in zip(expected, _sums(_single(table, particle, pose), pad=pad), strict=True):
            total += weight * part
    for part, wanted in zip(got, expected, strict=True):
        np.testing.assert_allclose(part, wanted, atol=2e-6 * np.abs(wanted).max())
    assert np.abs(got[0]).max() > 1


def test_smeared_insertion_is_the_direct_sum(tmp_path: Path) -> None:
    """Discrete Fourier sums of the pixels, CTFs and trilinear weights written out, one pixel and pose at a time."""
    box, pad = 7, 2
    table = _table(tmp_path, box, 2)
    scale = np.array([0.5, 2.0])
    table = replace(table, smears=_smears(table, [3, 5]), image_scale=scale)
    assert table.smears is not None
    smears, grid = table.smears, BandGrid(box, box // 2 - 1, pad)
    axis = np.arange(box) - box // 2
    outside = axis[:, None] ** 2 + axis**2 > _RADIUS**2
    side = 2 * grid.half + 1
    full = np.zeros((3, side, side, side), np.complex128)
    with ImageReader(table) as reader:
        images = reader.read(np.arange(2)).astype(np.float64)
    frequencies = [(kx, ky) for ky in range(-3, 4) for kx in range(-3, 4) if 0 < kx * kx + ky * ky <= grid.radius**2]
    for particle, weight, angles, (sx, sy) in zip(
        smears.owner, smears.weight, smears.angles_deg, smears.shifts_px, strict=True
    ):
        background = images[particle][outside]
        image = (images[particle] - background.mean()) / background.std()
        matrix = relion_matrices(angles[None])[0]
        for kx, ky in frequencies:
            wave = np.exp(-2j * np.pi / box * (kx * (axis[None, :] + sx) + ky * (axis[:, None] + sy)))
            value = (image * wave).sum() / box
            transfer = ctf(
                np.array([kx]), np.array([ky]), box, table.pixel_size_A, table.defocus_u_A[particle],
                table.defocus_v_A[particle], table.defocus_angle_deg[particle], 300.0, 2.7, 0.1,
            ).item() / scale[particle]  # fmt: skip
            x, y, z = pad * (matrix.T @ [kx, ky, 0.0]) + grid.half
            for corner in np.ndindex(2, 2, 2):
                place = [int(np.floor(part)) + step for part, step in zip((z, y, x), corner, strict=True)]
                share = np.prod([1 - abs(part - at) for part, at in zip((z, y, x), place, strict=True)])
                full[0][tuple(place)] += weight * share * transfer * value
                full[1][tuple(place)] += weight * share * transfer**2
    numerator, total = _sums(table, pad=pad)
    for got, wanted in zip((numerator, total), full[:2, :, :, grid.half :], strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())


def test_one_pose_of_probability_1_is_no_smear(tmp_path: Path) -> None:
    table = _table(tmp_path, 9, 5)
    smears = Smears.of_lists(np.arange(5), table.angles_deg, table.shifts_px, np.full(5, 0.7))
    plain, smeared = _sums(table), _sums(replace(table, smears=smears))
    for one, other in zip(plain, smeared, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_particle_at_all_symmetry_mates_is_a_symmetric_map(tmp_path: Path) -> None:
    """Even probabilities for the mates of C4 make the map of --sym c4; so does symmetry expansion."""
    operators = point_group("C4")
    table = _table(tmp_path, 12, 40)
    mates = relion_angles((relion_matrices(table.angles_deg)[:, None] @ operators).reshape(-1, 3, 3))
    owner = np.repeat(np.arange(40), 4)
    smeared = replace(table, smears=Smears.of_lists(owner, mates, table.shifts_px[owner], np.full(160, 0.25)))
    expanded = expand_symmetry(replace(table, random_subset=np.arange(40) % 2 + 1), operators)
    wanted = _maps(table, operators)
    several = reconstruct_groups(
        SerialComm(), expanded, [np.arange(160)], half=expanded.random_subset - 1, radius_px=5, mask=None,
        symmetry=IDENTITY,
    )  # fmt: skip
    assert several is not None
    for maps in (_maps(smeared), several[0]):
        for name in ("map", "half1", "half2"):
            got, right = getattr(maps, name), getattr(wanted, name)
            np.testing.assert_allclose(got, right, atol=2e-5 * np.abs(right).max())


def test_the_refinement_s_scale_and_noise_weight_images(tmp_path: Path) -> None:
    table = _table(tmp_path, 9, 6)
    numerator, weight = _sums(table)
    scaled = _sums(replace(table, image_scale=np.full(6, 3.0)))
    # An image that has to be multiplied by 3 has a third of the contrast, and a ninth of the weight.
    np.testing.assert_allclose(scaled[0], numerator / 3, atol=1e-5 * np.abs(numerator).max())
    np.testing.assert_allclose(scaled[1], weight / 9, rtol=1e-5, atol=1e-9)
    # Two optics groups, the second four times as noisy as the first: its weight is a quarter; their mean weight is 1.
    group = np.array([0, 1, 0, 1, 1, 1])
    power = np.repeat([[1.0], [4.0]], 5, axis=1)
    parts = [_sums(table.subset(group == which)) for which in (0, 1)]
    first = 6 / (2 + 4 / 4)
    for unit in (1.0, 1e-7):
        got = _sums(replace(table, optics_group=group, noise_power=unit * power))
        for place in (0, 1):
            wanted = first * (parts[0][place] + parts[1][place] / 4)
            np.testing.assert_allclose(got[place], wanted, atol=1e-5 * np.abs(wanted).max())
    # Alike noise, and unknown noise, weigh nothing.
    for none in (np.ones((2, 5)), np.zeros((2, 5)), np.array([[3.0] * 5, [0.0] * 5])):
        same = _sums(replace(table, optics_group=group, noise_power=none))
        assert same[0].tobytes() == numerator.tobytes()


def test_poses_that_fit_sharpen_the_map(tmp_path: Path) -> None:
    """With the true pose among wrong ones by its probability, the map agrees better than with a wrong pose alone."""
    truth = 20.0 * density(16, 5, seed=1)
    table = read_particles(write_particles_of(tmp_path, [truth], np.zeros(150, np.int64)))
    draw = np.random.default_rng(2)
    owner = np.repeat(np.arange(150), 2)
    angles = table.angles_deg[owner] + np.tile([[0.0], [1.0]], (150, 3)) * draw.normal(0, 25, (300, 3))
    smears = Smears.of_lists(owner, angles, table.shifts_px[owner], np.tile([0.5, 0.5], 150))
    wrong = replace(table, angles_deg=angles[1::2])
    fits = []
    for posed in (wrong, replace(wrong, smears=smears), table):
        volume = _maps(posed).map
        fits.append(np.corrcoef(volume.ravel(), truth.ravel())[0, 1])
    assert fits[0] < fits[1] - 0.02
    assert fits[1] < fits[2]
