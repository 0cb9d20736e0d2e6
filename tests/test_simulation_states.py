from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from hpcsort.errors import InputError, OptionError
from hpcsort.io.mrc import read_map, write_map
from hpcsort.simulation import PHANTOM_DOMAINS, SimulationOptions, make_states, ribosome_phantom
from hpcsort.simulation.domains import domain_centres
from hpcsort.simulation.states import fit_box, map_states, phantom_states


def _particle(box: int = 32) -> np.ndarray:
    """Lumpy ball of density."""
    rng = np.random.default_rng(5)
    z, y, x = np.indices((box,) * 3) - box // 2
    inside = np.sqrt(x**2 + y**2 + z**2) < 0.36 * box
    return (inside * (1 + 0.3 * rng.standard_normal((box,) * 3))).astype(np.float32)


def test_phantom_lies_inside_its_box_and_is_always_the_same() -> None:
    base, domains = ribosome_phantom(32, 10.0)
    whole = base + sum(domains.values())
    border = np.ones(whole.shape, dtype=bool)
    border[2:-2, 2:-2, 2:-2] = False
    assert whole[border].max() < 1e-3 * whole.max()
    np.testing.assert_array_equal(base, ribosome_phantom(32, 10.0)[0])
    assert tuple(domains) == PHANTOM_DOMAINS


def test_phantom_domains_are_parts_of_the_particle_and_not_of_each_other() -> None:
    base, domains = ribosome_phantom(32, 10.0)
    whole = float((base + sum(domains.values())).sum())
    shares = [float(domain.sum()) / whole for domain in domains.values()]
    assert all(0.01 < share < 0.2 for share in shares)
    assert shares == sorted(shares, reverse=True)
    for one, other in combinations(domains.values(), 2):
        assert np.vdot(one, other) < 0.1 * np.linalg.norm(one) * np.linalg.norm(other)


def test_phantom_keeps_its_mass_at_every_sampling() -> None:
    masses = [float(ribosome_phantom(box, pixel)[0].sum()) * pixel**3 for box, pixel in ((32, 10.0), (43, 7.0))]
    assert masses[0] == pytest.approx(masses[1], rel=1e-3)


def test_phantom_needs_room() -> None:
    with pytest.raises(OptionError, match="give --box 50 or more"):
        ribosome_phantom(32, 5.0)


def test_phantom_states_lack_one_domain_then_two() -> None:
    states = phantom_states(7, 16, 20.0)
    domains = ribosome_phantom(16, 20.0)[1]
    for state, name in zip(states[1:6], PHANTOM_DOMAINS, strict=True):
        np.testing.assert_allclose(states[0] - state, domains[name], atol=1e-5)
    both = domains[PHANTOM_DOMAINS[0]] + domains[PHANTOM_DOMAINS[1]]
    np.testing.assert_allclose(states[0] - states[6], both, atol=1e-5)
    with pytest.raises(OptionError, match="32 states"):
        phantom_states(33, 16, 20.0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_states_of_a_map_lack_clearly_different_spheres(seed: int) -> None:
    volume = _particle()
    states = map_states(volume, 5, 6.0, seed)
    np.testing.assert_array_equal(states[0], volume)
    _, centres = domain_centres(volume, 4, 6.0, seed)
    z, y, x = np.indices(volume.shape)
    lost = []
    for state, (cz, cy, cx) in zip(states[1:], centres, strict=True):
        distance = np.sqrt((z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2)
        np.testing.assert_allclose(state[distance < 4.4], 0, atol=1e-6)
        np.testing.assert_array_equal(state[distance > 7.6], volume[distance > 7.6])
        lost.append(np.linalg.norm(volume - state))
        assert lost[-1] > 0.15 * np.linalg.norm(volume)
    for one, other in combinations(range(1, 5), 2):
        assert np.linalg.norm(states[one] - states[other]) > 0.9 * min(lost)


def test_turned_domains_keep_the_mass_and_move_the_density() -> None:
    # smooth, because a spline cannot turn single voxels
    base, domains = ribosome_phantom(32, 10.0)
    volume = base + sum(domains.values())
    states = map_states(volume, 3, 6.0, 0, rotate_deg=20.0)
    for state in states[1:]:
        assert state.sum() == pytest.approx(volume.sum(), rel=2e-3)
        assert np.linalg.norm(state - volume) > 0.1 * np.linalg.norm(volume)
    opposite = map_states(volume, 3, 6.0, 0, rotate_deg=-20.0)
    assert not np.allclose(opposite[1], states[1])


def test_too_many_domains_are_refused() -> None:
    with pytest.raises(OptionError, match="leave room for"):
        map_states(_particle(16), 60, 6.0, 0)


@pytest.mark.parametrize(("edge", "box"), [(7, 8), (8, 7), (9, 16), (16, 9), (8, 8), (9, 9)])
def test_crop_and_pad_keep_the_origin(edge: int, box: int) -> None:
    volume = np.random.default_rng(0).random((edge,) * 3)
    fitted = fit_box(volume, box)
    assert fitted.shape == (box,) * 3
    for offset in ((0, 0, 0), (-3, 2, -1), (3, -3, 3)):
        assert fitted[tuple(box // 2 + o for o in offset)] == np.float32(volume[tuple(edge // 2 + o for o in offset)])
    if box >= edge:
        assert fitted.sum() == pytest.approx(volume.sum(), rel=1e-6)
        np.testing.assert_array_equal(fit_box(fitted, edge), volume.astype(np.float32))


def test_map_file_gives_box_and_pixel_size(tmp_path: Path) -> None:
    path = tmp_path / "map.mrc"
    write_map(path, _particle(), 3.5)
    options = SimulationOptions(out=tmp_path, map_path=path, states=2, domain_radius_px=5)
    maps, pixel = make_states(options)
    assert pixel == pytest.approx(3.5)
    np.testing.assert_array_equal(maps[0], read_map(path)[0])


def test_map_without_voxel_size_or_density_is_refused(tmp_path: Path) -> None:
    write_map(tmp_path / "no_size.mrc", _particle(16), 0.0)
    write_map(tmp_path / "empty.mrc", np.zeros((8, 8, 8)), 2.0)
    with pytest.raises(InputError, match="--angpix"):
        make_states(SimulationOptions(out=tmp_path, map_path=tmp_path / "no_size.mrc"))
    with pytest.raises(InputError, match="no density"):
        make_states(SimulationOptions(out=tmp_path, map_path=tmp_path / "empty.mrc"))


def test_five_states_of_the_real_ribosome_are_clearly_different(shared_data: Path) -> None:
    volume, _ = read_map(shared_data / "maps" / "ribosome70S_65px_5A.mrc")
    states = map_states(volume, 5, 12.0, 0)
    for one, other in combinations(states, 2):
        assert np.linalg.norm(one - other) > 0.25 * np.linalg.norm(volume)
