from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hpcsort.simulation import SectionMaker, half_plane, image_from_half_plane


def _points(matrix: np.ndarray, px: np.ndarray, py: np.ndarray) -> np.ndarray:
    return np.stack([px, py, np.zeros_like(px)], axis=1) @ matrix


def _direct(volume: np.ndarray, matrix: np.ndarray, px: np.ndarray, py: np.ndarray) -> np.ndarray:
    box = len(volume)
    z, y, x = np.indices(volume.shape).reshape(3, -1) - box // 2
    phase = _points(matrix, px, py) @ np.stack([x, y, z]) * (-2j * np.pi / box)
    return np.exp(phase) @ volume.reshape(-1)


@pytest.mark.parametrize("box", [7, 8, 9, 12])
def test_sections_agree_with_direct_sums(box: int) -> None:
    rng = np.random.default_rng(box)
    volume = rng.standard_normal((box, box, box))
    maker = SectionMaker(volume)
    px, py = half_plane(box)
    for matrix in Rotation.random(3, rng=rng).as_matrix():
        exact = _direct(volume, matrix, px, py)
        error = np.linalg.norm(maker.section(matrix, px, py) - exact) / np.linalg.norm(exact)
        assert error < 1e-4


def test_sections_agree_with_finufft_at_a_real_size() -> None:
    finufft = pytest.importorskip("finufft", reason="the independent transform (test extra) is not installed")
    rng = np.random.default_rng(0)
    volume = rng.standard_normal((32, 32, 32))
    maker = SectionMaker(volume)
    px, py = half_plane(32)
    matrix = Rotation.random(rng=rng).as_matrix()
    x, y, z = np.ascontiguousarray((_points(matrix, px, py) * 2 * np.pi / 32).T)
    exact = finufft.nufft3d2(z, y, x, volume.astype(complex), isign=-1, eps=1e-12)
    assert np.linalg.norm(maker.section(matrix, px, py) - exact) < 3e-5 * np.linalg.norm(exact)


@pytest.mark.parametrize("box", [8, 9])
def test_view_along_z_sums_the_map(box: int) -> None:
    rng = np.random.default_rng(1)
    volume = np.zeros((box, box, box))
    inner = slice(2, box - 2)
    volume[inner, inner, inner] = rng.random((box - 4,) * 3)
    px, py = half_plane(box)
    image = image_from_half_plane(SectionMaker(volume).section(np.eye(3), px, py), px, py, box)
    spectrum = np.fft.fft2(np.fft.ifftshift(volume.sum(axis=0)))[py % box, px]
    np.testing.assert_allclose(image, image_from_half_plane(spectrum, px, py, box), atol=1e-3)
    assert image.sum() == pytest.approx(volume.sum(), rel=1e-4)


def test_a_point_projects_to_where_the_matrix_sends_it() -> None:
    volume = np.zeros((15, 15, 15))
    volume[7 + 1, 7 + 2, 7 + 4] = 1.0
    # a turn that sends (x, y, z) = (4, 2, 1) to (2, -4, 1)
    matrix = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    px, py = half_plane(15)
    image = image_from_half_plane(SectionMaker(volume).section(matrix, px, py), px, py, 15)
    assert np.unravel_index(np.argmax(image), image.shape) == (7 - 4, 7 + 2)


def test_half_plane_is_the_half_of_a_disc() -> None:
    for box in (7, 8, 9):
        px, py = half_plane(box)
        radius = (box - 1) // 2
        ky, kx = np.indices((2 * radius + 1,) * 2) - radius
        disc = (kx**2 + ky**2 <= radius**2).sum()
        assert 2 * (px > 0).sum() + (px == 0).sum() == disc
        assert len(set(zip(px.tolist(), py.tolist(), strict=True))) == px.size


def test_maps_must_be_cubic() -> None:
    with pytest.raises(ValueError, match="cubic"):
        SectionMaker(np.zeros((4, 4, 5)))
