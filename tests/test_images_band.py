"""Band-limited images agree with direct Fourier sums, are centred by their origins, and are whitened by group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpcsort.errors import InputError
from hpcsort.images import BandData, half_plane, load_band, noise_spectrum
from hpcsort.io import ImageReader, ParticleTable, read_particles, write_stack, write_tables
from hpcsort.optics import ctf

_PIXEL_A = 5.0


def _table(folder: Path, images: np.ndarray, origins: np.ndarray) -> ParticleTable:
    count = len(images)
    write_stack(folder / "p.mrcs", images.astype(np.float32), images.shape, _PIXEL_A)
    columns = {
        "rlnImageName": [f"{row + 1}@p.mrcs" for row in range(count)],
        "rlnAngleRot": [0.0] * count, "rlnAngleTilt": [0.0] * count, "rlnAnglePsi": [0.0] * count,
        "rlnOriginX": origins[:, 0], "rlnOriginY": origins[:, 1],
        "rlnDefocusU": 9000.0 + 500.0 * np.arange(count), "rlnDefocusV": 8500.0 + 500.0 * np.arange(count),
        "rlnDefocusAngle": 7.0 * np.arange(count), "rlnVoltage": [300.0] * count,
        "rlnSphericalAberration": [2.7] * count, "rlnAmplitudeContrast": [0.1] * count,
        "rlnDetectorPixelSize": [_PIXEL_A] * count,
    }  # fmt: skip
    write_tables(folder / "p.star", {"particles": pd.DataFrame(columns)})
    return read_particles(folder / "p.star")


def _load(table: ParticleTable, radius: int, rows: np.ndarray | None = None, **more: object) -> BandData:
    given = {"particle_radius_px": 1000.0, "batch": 3} | more
    chosen = np.arange(len(table)) if rows is None else rows
    with ImageReader(table) as reader:
        return load_band(table, chosen, np.tile(np.eye(3), (len(chosen), 1, 1)), radius, reader.read, **given)  # type: ignore[arg-type]


def _random_images(count: int, box: int) -> np.ndarray:
    return np.random.default_rng(box).normal(3.0, 2.0, (count, box, box))


@pytest.mark.parametrize("radius", [1, 2, 3.7, 7, 8, 11.5])
def test_the_half_plane_holds_each_friedel_pair_once(radius: float) -> None:
    px, py = half_plane(radius)
    points = {(int(x), int(y)) for x, y in zip(px, py, strict=True)}
    limit = int(radius) + 1
    disc = {
        (x, y)
        for x in range(-limit, limit + 1)
        for y in range(-limit, limit + 1)
        if 0 < x * x + y * y <= radius * radius
    }
    mates = {(-x, -y) for x, y in points}
    assert len(points) == len(px)
    assert points | mates == disc
    assert not points & mates
    assert px.dtype == py.dtype == np.float32


@pytest.mark.parametrize(("box", "radius"), [(15, 7), (16, 7), (13, 3)])
def test_transforms_equal_direct_sums(tmp_path: Path, box: int, radius: int) -> None:
    images = _random_images(4, box)
    origins = np.array([[0.0, 0.0], [1.0, -2.0], [0.3, 0.7], [-3.25, 1.5]])
    data = _load(_table(tmp_path, images, origins), radius)
    axis = np.arange(box) - box // 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    for image, (ox, oy), found in zip(images, origins, data.images, strict=True):
        scaled = (image - image.mean()) / image.std()
        # Where the content is added to by the origin it is centred.
        direct = [
            (scaled * np.exp(-2j * np.pi / box * (kx * (x + ox) + ky * (y + oy)))).sum() / box
            for kx, ky in zip(data.px, data.py, strict=True)
        ]
        np.testing.assert_allclose(found, direct, atol=1e-5)


def test_a_shifted_image_with_its_origin_is_the_centred_one(tmp_path: Path) -> None:
    image = _random_images(1, 16)[0]
    origins = np.array([[0, 0], [3, 0], [0, -2], [-1, 5]])
    # RELION's origin is what must be added to the content, so the content lies at minus the origin.
    images = np.stack([np.roll(image, (-oy, -ox), axis=(0, 1)) for ox, oy in origins])
    data = _load(_table(tmp_path, images, origins.astype(float)), 7)
    np.testing.assert_allclose(data.images, np.tile(data.images[0], (4, 1)), atol=1e-5)


def test_background_is_measured_outside_the_particle(tmp_path: Path) -> None:
    box, radius = 16, 5
    images = _random_images(3, box)
    axis = np.arange(box) - box // 2
    inside = axis[:, None] ** 2 + axis**2 <= radius**2
    images[:, inside] += 50.0
    plain = _load(_table(tmp_path, images, np.zeros((3, 2))), 6, particle_radius_px=radius)
    grey = 4.0 * images - 9.0
    (tmp_path / "grey").mkdir()
    again = _load(_table(tmp_path / "grey", grey, np.zeros((3, 2))), 6, particle_radius_px=radius)
    np.testing.assert_allclose(again.images, plain.images, rtol=1e-4, atol=1e-4)
    outside = images[0][~inside]
    scaled = (images[0] - outside.mean()) / outside.std()
    spectrum = np.fft.fft2(np.fft.ifftshift(scaled)) / box
    np.testing.assert_allclose(
        plain.images[0], spectrum[plain.py.astype(int) % box, plain.px.astype(int)], rtol=1e-4, atol=1e-4
    )


def test_rows_keep_their_own_ctf_and_rotation(tmp_path: Path) -> None:
    table = _table(tmp_path, _random_images(7, 13), np.zeros((7, 2)))
    rows = np.array([5, 0, 6, 3, 1])
    rotations = np.random.default_rng(0).normal(size=(5, 3, 3))
    with ImageReader(table) as reader:
        data = load_band(table, rows, rotations, 6, reader.read, particle_radius_px=5, batch=2)
    everything = _load(table, 6, particle_radius_px=5.0)
    np.testing.assert_array_equal(data.images, everything.images[rows])
    np.testing.assert_allclose(data.rotations, rotations, rtol=1e-6)
    for place, row in enumerate(rows.tolist()):
        single = ctf(
            data.px, data.py, 13, np.array([_PIXEL_A]), np.array([9000.0 + 500 * row]), np.array([8500.0 + 500 * row]),
            np.array([7.0 * row]), np.array([300.0]), np.array([2.7]), np.array([0.1]),
        )  # fmt: skip
        np.testing.assert_allclose(data.ctfs[place], single[0], atol=1e-5)


def test_a_smaller_band_is_part_of_a_larger(tmp_path: Path) -> None:
    table = _table(tmp_path, _random_images(4, 16), np.full((4, 2), 0.4))
    large, small = _load(table, 7), _load(table, 4)
    cut = large.cropped(4)
    for name in ("px", "py", "images", "ctfs", "radius"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(small, name))
    assert large.cropped(7) is large


def test_no_rows_at_all(tmp_path: Path) -> None:
    data = _load(_table(tmp_path, _random_images(2, 16), np.zeros((2, 2))), 5, rows=np.zeros(0, np.int64))
    assert data.images.shape == data.ctfs.shape == (0, half_plane(5)[0].size)
    power, count = noise_spectrum(data, data.images, 2)
    assert not power.any()
    assert not count.any()


def test_images_are_inspected_before_they_are_used(tmp_path: Path) -> None:
    images = _random_images(5, 16)
    images[3, 2, 2] = np.nan
    images[4, 2, 2] = np.inf
    images[1] = 4.0
    seen: dict[int, np.ndarray] = {}

    def inspect(rows: np.ndarray, batch: np.ndarray) -> None:
        seen.update(zip(rows.tolist(), batch.copy(), strict=True))

    rows = np.array([4, 3, 2, 1, 0])
    data = _load(_table(tmp_path, images, np.zeros((5, 2))), 5, rows=rows, inspect=inspect)
    assert list(seen) == rows.tolist()
    for row, image in seen.items():
        np.testing.assert_array_equal(image, images[row].astype(np.float32))
    assert np.isfinite(data.images[2:]).all()


def test_a_table_without_stacks_is_refused(tmp_path: Path) -> None:
    _table(tmp_path, _random_images(2, 16), np.zeros((2, 2)))
    (tmp_path / "p.mrcs").unlink()
    absent = read_particles(tmp_path / "p.star", need_images=False)
    with pytest.raises(InputError, match="--datadir"):
        load_band(absent, np.arange(2), np.tile(np.eye(3), (2, 1, 1)), 5, lambda rows: rows, particle_radius_px=5)


def _coloured(count: int, seed: int) -> tuple[BandData, np.ndarray]:
    """Noise of two groups with their own spectra."""
    draw, (px, py) = np.random.default_rng(seed), half_plane(6)
    groups = np.arange(count) % 2
    sigma = np.stack([1.0 + np.arange(7), 0.5 + 0.1 * np.arange(7) ** 2])
    shell = np.rint(np.hypot(px, py)).astype(int)
    white = (draw.normal(size=(count, px.size)) + 1j * draw.normal(size=(count, px.size))) / np.sqrt(2)
    images = (white * sigma[groups][:, shell]).astype(np.complex64)
    data = BandData(px, py, images, np.ones_like(images.real), np.tile(np.eye(3, dtype=np.float32), (count, 1, 1)),
                    groups, 6)  # fmt: skip
    return data, sigma


def test_the_noise_spectrum_is_the_mean_power_of_shells() -> None:
    data, _ = _coloured(9, 1)
    power, count = noise_spectrum(data, data.images, 3)
    assert power.shape == count.shape == (3, 7)
    for group in range(3):
        for shell in range(7):
            members = [
                abs(complex(data.images[i, p])) ** 2
                for i in range(9)
                for p in range(data.px.size)
                if data.groups[i] == group and round(float(np.hypot(data.px[p], data.py[p]))) == shell
            ]
            assert count[group, shell] == len(members)
            assert power[group, shell] == pytest.approx(sum(members), rel=1e-5)


def test_whitened_noise_has_unit_variance_in_every_group_and_shell() -> None:
    data, sigma = _coloured(400, 2)
    white = data.whitened(sigma)
    power, count = noise_spectrum(white, white.images, 2)
    np.testing.assert_allclose(power[:, 1:] / count[:, 1:], 1.0, atol=5 / np.sqrt(400 * 2))
    # Images and CTFs are scaled alike, so what a map predicts is too.
    np.testing.assert_allclose(white.images / white.ctfs, data.images, rtol=1e-5)
