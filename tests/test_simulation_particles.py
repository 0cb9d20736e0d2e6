from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hpcsort.errors import OptionError
from hpcsort.geometry import relion_matrices, view_directions
from hpcsort.simulation import SimulationOptions
from hpcsort.simulation.particles import SimulatedParticles, draw_particles


def _draw(**options: Any) -> SimulatedParticles:
    return draw_particles(SimulationOptions(out=Path("unused"), **options))


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"particles": 100, "sizes": (60, 20, 10, 7, 3)}, [60, 20, 10, 7, 3]),
        ({"particles": 10, "states": 3}, [4, 3, 3]),
        ({"particles": 7, "states": 7}, [1] * 7),
        ({"particles": 101, "sizes": (1, 1), "junk": 0.2}, [41, 40]),
        ({"particles": 1, "states": 1}, [1]),
    ],
)
def test_groups_have_exactly_the_asked_for_sizes(options: dict[str, Any], sizes: list[int]) -> None:
    particles = _draw(**options)
    good = particles.state[particles.state >= 0]
    assert np.bincount(good).tolist() == sizes
    assert (particles.state == -1).sum() == options["particles"] - sum(sizes)


def test_half_of_the_junk_is_another_density() -> None:
    particles = _draw(particles=100, junk=0.3)
    assert particles.wrong_density.sum() == 15
    assert (particles.state[particles.wrong_density] == -1).all()


def test_states_do_not_follow_the_order_of_the_table() -> None:
    state = _draw(particles=3000, states=3).state
    assert abs(np.corrcoef(state, np.arange(3000))[0, 1]) < 0.06


def test_views_are_uniform_on_the_sphere() -> None:
    particles = _draw(particles=3000)
    directions = view_directions(particles.matrices)
    assert np.linalg.norm(directions.mean(axis=0)) < 0.05
    np.testing.assert_allclose(directions.T @ directions / 3000, np.eye(3) / 3, atol=0.03)
    # a random rotation leaves no vector where it was
    assert np.linalg.norm(particles.matrices.mean(axis=0)) < 0.1


def test_preferred_views_fill_the_cone() -> None:
    directions = view_directions(_draw(particles=2000, preferred=0.7).matrices)
    axis = view_directions(relion_matrices([[40.0, 70.0, 0.0]]))[0]
    in_cone = (directions @ axis > np.cos(np.deg2rad(20.0))).mean()
    by_chance = (1 - np.cos(np.deg2rad(20.0))) / 2
    assert in_cone == pytest.approx(0.7 + 0.3 * by_chance, abs=0.04)


def test_written_poses_are_exact_without_errors() -> None:
    particles = _draw(particles=50)
    np.testing.assert_allclose(relion_matrices(particles.written_angles_deg), particles.matrices, atol=1e-12)
    np.testing.assert_array_equal(particles.written_origins_px, particles.origins_px)


def test_pose_errors_have_the_asked_for_size_and_leave_the_truth_alone() -> None:
    particles = _draw(particles=2000, angle_error_deg=2.0, shift_error_px=0.5)
    turned = relion_matrices(particles.written_angles_deg) @ particles.matrices.transpose(0, 2, 1)
    errors = Rotation.from_matrix(turned).as_rotvec(degrees=True)
    np.testing.assert_allclose(errors.std(axis=0), 2.0, rtol=0.08)
    moved = particles.written_origins_px - particles.origins_px
    np.testing.assert_allclose(moved.std(axis=0), 0.5, rtol=0.08)
    np.testing.assert_array_equal(particles.matrices, _draw(particles=2000).matrices)


def test_origins_have_the_asked_for_spread() -> None:
    origins = _draw(particles=2000, shift_sigma_px=3.0).origins_px
    np.testing.assert_allclose(origins.std(axis=0), 3.0, rtol=0.08)


def test_micrographs_share_defocus_up_to_the_height_of_particles() -> None:
    particles = _draw(particles=400, micrographs=7, defocus_range_A=(10000.0, 20000.0))
    assert np.unique(particles.micrograph).tolist() == list(range(7))
    mean = (particles.defocus_u_A + particles.defocus_v_A) / 2
    assert mean.min() > 9000
    assert mean.max() < 21000
    assert (particles.defocus_u_A >= particles.defocus_v_A).all()
    for micrograph in range(7):
        members = particles.micrograph == micrograph
        assert mean[members].std() == pytest.approx(150, rel=0.5)
        assert np.unique(particles.defocus_angle_deg[members]).size == 1


def test_half_sets_are_even() -> None:
    assert np.bincount(_draw(particles=101).subset).tolist() == [0, 51, 50]


def test_a_particle_does_not_depend_on_how_many_there_are() -> None:
    few, many = _draw(particles=5, micrographs=1), _draw(particles=50, micrographs=1)
    np.testing.assert_array_equal(few.matrices, many.matrices[:5])
    np.testing.assert_array_equal(few.defocus_u_A, many.defocus_u_A[:5])
    assert not np.array_equal(few.matrices, _draw(particles=5, seed=1).matrices)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"particles": 2, "states": 3}, "--particles leaves 2 images for 3 states"),
        ({"particles": 10, "sizes": (1000, 1)}, "no image for state 1"),
        ({"particles": 0}, "--particles is 0"),
        ({"snr": 0.0}, "--snr is 0.0"),
        ({"snr": float("nan")}, "--snr is nan"),
        ({"noise": "pink"}, "--noise is pink"),
        ({"sizes": (1.0, -1.0)}, "--sizes is"),
        ({"sizes": (1.0, 2.0), "states": 3}, "--sizes names 2 states but --states is 3"),
        ({"junk": 1.0}, "--junk is 1.0"),
        ({"preferred": 1.5}, "--preferred is 1.5"),
        ({"box_px": 3}, "--box is 3"),
        ({"defocus_range_A": (2.0, 1.0)}, "--defocus-range is 2,1 A"),
        ({"dtype": "int8"}, "--dtype is int8"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        _draw(**options)
