from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import starfile
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hpcsort.geometry import (
    relion_angles,
    relion_matrices,
    relion_to_sphire,
    relion_to_xmipp,
    relion_to_xmipp_2d,
    sphire_to_relion,
    view_directions,
    xmipp_2d_to_relion,
    xmipp_to_relion,
)

_degrees = st.floats(-720, 720)


def _written_out(rot: float, tilt: float, psi: float) -> np.ndarray:
    def rz(t: float) -> np.ndarray:
        c, s = np.cos(np.deg2rad(t)), np.sin(np.deg2rad(t))
        return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])

    c, s = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
    return rz(psi) @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) @ rz(rot)


@given(_degrees, _degrees, _degrees)
def test_matrices_are_the_product_of_three_turns(rot: float, tilt: float, psi: float) -> None:
    matrix = relion_matrices([[rot, tilt, psi]])[0]
    np.testing.assert_allclose(matrix, _written_out(rot, tilt, psi), atol=1e-12)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1.0)


@given(
    _degrees,
    st.one_of(_degrees, st.sampled_from([0.0, 180.0, -180.0, 360.0, 1e-9, 1e-5, 179.99999, 180.0000001])),
    _degrees,
)
def test_angles_give_the_same_matrix_back_at_every_tilt(rot: float, tilt: float, psi: float) -> None:
    matrix = relion_matrices([[rot, tilt, psi]])
    angles = relion_angles(matrix)
    assert 0.0 <= angles[0, 1] <= 180.0
    np.testing.assert_allclose(relion_matrices(angles), matrix, atol=3e-6)


def test_angles_in_range_come_back_themselves() -> None:
    rng = np.random.default_rng(0)
    angles = np.stack([rng.uniform(-180, 180, 50), rng.uniform(1, 179, 50), rng.uniform(-180, 180, 50)], axis=1)
    np.testing.assert_allclose(relion_angles(relion_matrices(angles)), angles, atol=1e-9)


@pytest.mark.parametrize("tilt", [0.0, 180.0])
def test_float32_matrices_at_the_poles(tilt: float) -> None:
    matrix = relion_matrices([[33.0, tilt, -71.0]]).astype(np.float32)
    angles = relion_angles(matrix)
    assert angles[0, 0] == 0.0
    np.testing.assert_allclose(relion_matrices(angles), matrix, atol=1e-6)


def test_view_direction_follows_rot_and_tilt() -> None:
    directions = view_directions(relion_matrices([[0, 0, 17], [0, 90, 17], [90, 90, -5], [0, 180, 0]]))
    np.testing.assert_allclose(directions, [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, -1]], atol=1e-12)


def test_empty_and_wrong_shapes() -> None:
    assert relion_matrices(np.empty((0, 3))).shape == (0, 3, 3)
    assert relion_angles(np.empty((0, 3, 3))).shape == (0, 3)
    with pytest.raises(ValueError, match=r"\(n, 3\)"):
        relion_matrices(np.zeros((3, 2)))


def test_round_trips_through_the_other_programs() -> None:
    rng = np.random.default_rng(1)
    alignment = tuple(rng.uniform(-5, 5, (5, 7)))
    for there, back in ((relion_to_sphire, sphire_to_relion), (relion_to_xmipp, xmipp_to_relion)):
        np.testing.assert_array_equal(back(*there(*alignment)), alignment)
    np.testing.assert_allclose(xmipp_2d_to_relion(*relion_to_xmipp_2d(*alignment[:3])), alignment[:3], atol=1e-12)


def test_a_flipped_projection_is_the_view_from_behind() -> None:
    # content at (x, y) of the unflipped picture lies at (-x, y) of the flipped one
    rng = np.random.default_rng(2)
    rot, tilt, psi = rng.uniform(-180, 180, (3, 9))
    flipped = xmipp_to_relion(rot, tilt, psi, np.full(9, 2.0), np.full(9, 3.0), flip=True)
    before = relion_matrices(np.stack([rot, tilt, psi], axis=1))
    after = relion_matrices(np.stack(flipped[:3], axis=1))
    point = np.array([3.0, -4.0, 5.0])
    np.testing.assert_allclose((after @ point)[:, :2], (before @ point)[:, :2] * [-1, 1], atol=1e-12)
    assert set(flipped[3]) == {-2.0}
    assert set(flipped[4]) == {3.0}


def test_two_dimensional_alignments_move_a_point_to_the_same_place() -> None:
    # Xmipp: y = R(psi) x + s; RELION: y = R(-psi_r) (x + o), with R(t) = [[cos, sin], [-sin, cos]]
    psi, sx, sy = 37.0, 2.0, -3.0
    psi_r, ox, oy = (float(v[0]) for v in xmipp_2d_to_relion(psi, sx, sy))

    def turn(t: float) -> np.ndarray:
        c, s = np.cos(np.deg2rad(t)), np.sin(np.deg2rad(t))
        return np.array([[c, s], [-s, c]])

    point = np.array([5.0, 1.0])
    np.testing.assert_allclose(turn(psi) @ point + [sx, sy], turn(-psi_r) @ (np.array([ox, oy]) + point), atol=1e-12)


def test_eman2_headers_give_the_star_file_of_the_same_particles(shared_data: Path) -> None:
    folder = shared_data / "eman_hdf"
    tables = starfile.read(folder / "same_particles.star")
    particles, pixel = tables["particles"], float(tables["optics"]["rlnImagePixelSize"].iloc[0])
    with h5py.File(folder / "eman2_stack_48x64.hdf") as file:
        images = file["MDF/images"]
        rows = [images[str(i)].attrs["EMAN.xform.projection"][0] for i in range(len(particles))]
    transforms = np.array([list(row) for row in rows]).reshape(-1, 3, 4)
    # EMAN2's matrix is A itself; SPIDER's angles are its zyz Euler angles
    spider = Rotation.from_matrix(transforms[:, :, :3]).as_euler("zyz", degrees=True)
    phi, theta, psi = -spider.T
    rot, tilt, psi, ox, oy = sphire_to_relion(phi, theta, psi, transforms[:, 0, 3], transforms[:, 1, 3])
    expected = relion_matrices(particles[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy())
    np.testing.assert_allclose(relion_matrices(np.stack([rot, tilt, psi], axis=1)), expected, atol=1e-5)
    np.testing.assert_allclose(transforms[:, :, :3], expected, atol=1e-5)
    origins = particles[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy() / pixel
    np.testing.assert_allclose(np.stack([ox, oy], axis=1), origins, atol=1e-4)
