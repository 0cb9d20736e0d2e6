"""Geometry of random conical tilts against rotated points, fits of coordinates, and the solid angle of the cone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcsort.geometry import relion_matrices
from hpcsort.pairs import fit_tilt
from hpcsort.pairs.tilt import heights_px
from hpcsort.planar import PlanarPoses
from hpcsort.reconstruction.conical import class_views, tilt_rotations, unmeasured_share
from hpcsort.simulation.tilt_micrographs import tilt_matrix
from hpcsort.simulation.tilt_options import TiltPairOptions


def test_untilted_views_agree_with_in_plane_poses() -> None:
    draw = np.random.default_rng(0)
    psi, mirror = draw.uniform(-180, 180, 9), np.arange(9) % 2 == 1
    views = class_views(psi, mirror)
    np.testing.assert_allclose(np.linalg.det(views), 1.0)
    points = draw.normal(size=(20, 3))
    seen = np.einsum("nij,pj->npi", views, points)
    # what the 2D alignment brings back onto the class average is the projection along z
    back = np.einsum("nij,npj->npi", PlanarPoses(psi, np.zeros((9, 2)), mirror).matrices, seen[:, :, :2])
    np.testing.assert_allclose(back, np.broadcast_to(points[:, :2], back.shape), atol=1e-12)
    # a mirrored particle is seen from behind
    np.testing.assert_allclose(seen[:, :, 2], np.where(mirror, -1.0, 1.0)[:, None] * points[:, 2], atol=1e-12)
    upright = relion_matrices(np.column_stack([np.zeros(9), np.zeros(9), psi]))
    np.testing.assert_allclose(views[~mirror], upright[~mirror], atol=1e-12)


@pytest.mark.parametrize("tilt_deg", [-60.0, -45.0, 45.0, 52.5])
@pytest.mark.parametrize("axis_deg", [1.0, 85.0, 179.0, -30.0])
@pytest.mark.parametrize("turn_deg", [3.0, 175.0])
def test_the_tilt_follows_from_coordinates_and_the_growth_of_defocus(
    tilt_deg: float, axis_deg: float, turn_deg: float
) -> None:
    options = TiltPairOptions(out=Path("unused"), tilt_deg=tilt_deg, axis_deg=axis_deg, turn_deg=turn_deg)
    true = tilt_matrix(options)
    flat = np.column_stack([np.random.default_rng(1).uniform(-500, 500, (40, 2)), np.zeros(40)])
    tilted = flat @ true.T
    fit = fit_tilt(flat[:, :2], tilted[:, :2])
    assert fit is not None
    sign = np.sign(np.sum(heights_px(tilted[:, :2], fit, np.zeros(2)) * tilted[:, 2]))
    angles = [np.array([value]) for value in (fit.tilt_deg, fit.axis_untilted_deg, fit.axis_tilted_deg, sign)]
    np.testing.assert_allclose(tilt_rotations(*angles)[0], true, atol=1e-6)


@pytest.mark.parametrize("tilt_deg", [30.0, 60.0, 90.0])
def test_the_missing_cone_has_the_solid_angle_of_its_opening(tilt_deg: float) -> None:
    count = 720
    none, turn = np.zeros(count), np.linspace(0, 360, count, endpoint=False)
    views = tilt_rotations(np.full(count, tilt_deg), none, none, none + 1) @ class_views(turn, np.zeros(count, bool))
    assert unmeasured_share(views, 100.0) == pytest.approx(1 - np.sin(np.deg2rad(tilt_deg)), abs=0.01)


def test_few_views_leave_more_than_the_cone() -> None:
    none = np.zeros(3)
    views = tilt_rotations(none + 60, none, none, none + 1) @ class_views(np.array([0.0, 120, 240]), none > 0)
    # three slabs of half a pixel on either side of a plane through a sphere of 20 px, less where they cross
    assert unmeasured_share(views, 20.0) == pytest.approx(1 - 3 * 0.5 / 20, abs=0.01)
