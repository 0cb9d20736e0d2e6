from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from hpcsort.cli.simulate import command
from hpcsort.errors import OptionError
from hpcsort.io.mrc import read_map, write_map
from hpcsort.simulation import SimulationOptions, SimulationResult, make_states, ribosome_phantom, simulate
from hpcsort.simulation.states import nested_states


def _particle(box: int) -> np.ndarray:
    """Lumpy ball of density with negative surroundings, as maps have them."""
    rng = np.random.default_rng(5)
    z, y, x = np.indices((box,) * 3) - box // 2
    inside = np.sqrt(x**2 + y**2 + z**2) < 0.36 * box
    return (inside * (1 + 0.3 * rng.standard_normal((box,) * 3)) - 0.05).astype(np.float32)


def _phantom(box: int, pixel: float) -> np.ndarray:
    base, domains = ribosome_phantom(box, pixel)
    return base + sum(domains.values())


def _shares_left(states: list[np.ndarray]) -> np.ndarray:
    """Mass of each state by that of the first; mass is what rises above a tenth of the peak of the first."""
    whole = states[0].astype(np.float64)
    mass = np.maximum(whole - 0.1 * np.quantile(whole, 0.999), 0)
    counted = mass > 0
    return np.array([(mass[counted] * state[counted] / whole[counted]).sum() for state in states]) / mass.sum()


@pytest.mark.parametrize(("box", "count", "share"), [(31, 2, 0.05), (32, 9, 0.04), (32, 17, 0.03), (32, 1, 0.03)])
@pytest.mark.parametrize("origin", ["ball", "phantom"])
def test_each_state_is_contained_in_the_one_before_and_lacks_the_share(
    origin: str, box: int, count: int, share: float
) -> None:
    volume = _particle(box) if origin == "ball" else _phantom(box, 320 / box)
    states = nested_states(volume, count, share, 3)
    assert len(states) == count
    np.testing.assert_array_equal(states[0], volume)
    for larger, smaller in pairwise(states):
        assert (np.abs(smaller) <= np.abs(larger)).all()
        assert (smaller * larger >= 0).all()
    np.testing.assert_allclose(_shares_left(states), 1 - share * np.arange(count), atol=1e-4)


def test_domains_are_compact_and_apart() -> None:
    volume = _particle(32)
    states = nested_states(volume, 9, 0.04, 0)
    # a ball of 4 % of the mass of a ball of 11.5 voxels has a third of its radius
    z, y, x = np.indices(volume.shape)
    centres = []
    for larger, smaller in pairwise(states):
        lost = np.abs(larger - smaller).astype(np.float64)
        centre = [(lost * axis).sum() / lost.sum() for axis in (z, y, x)]
        distance = np.sqrt(sum((axis - at) ** 2 for axis, at in zip((z, y, x), centre, strict=True)))
        assert lost[distance < 9].sum() > 0.98 * lost.sum()
        centres.append(centre)
    apart = np.linalg.norm(np.array(centres)[:, None] - np.array(centres), axis=2)
    assert apart[~np.eye(8, dtype=bool)].min() > 4


def test_seed_chooses_the_first_domain_and_nothing_else_is_random() -> None:
    volume = _particle(24)
    one, same, other = (nested_states(volume, 4, 0.04, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one[1], other[1])


@pytest.mark.parametrize(("count", "share"), [(4, 0.4), (12, 0.1), (1200, 0.0005)])
def test_what_does_not_fit_is_refused(count: int, share: float) -> None:
    with pytest.raises(OptionError, match="--domain-share"):
        nested_states(_particle(16), count, share, 0)


def test_options_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--rotate 10"):
        SimulationOptions(out=tmp_path, nested=True, rotate_deg=10)
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(OptionError, match="--domain-share"):
            SimulationOptions(out=tmp_path, nested=True, domain_share=share)


def test_map_and_phantom_make_the_states_asked_for(tmp_path: Path) -> None:
    write_map(tmp_path / "map.mrc", _particle(20), 4.0)
    for source in ({"map_path": tmp_path / "map.mrc"}, {"box_px": 26, "pixel_size_A": 10.0}):
        options = SimulationOptions(out=tmp_path, states=5, nested=True, domain_share=0.05, **source)
        maps, _ = make_states(options)
        np.testing.assert_allclose(_shares_left(maps), [1, 0.95, 0.9, 0.85, 0.8], atol=1e-4)


def _simulate(out: Path, **options: Any) -> SimulationResult:
    small: dict[str, Any] = {"box_px": 16, "pixel_size_A": 20.0, "nested": True, "domain_share": 0.05}
    return simulate(SimulationOptions(out=out, **(small | options)))


def test_sizes_are_exact_and_bytes_the_same(tmp_path: Path) -> None:
    sizes = (9, 14, 23, 44, 30, 38)
    one, two = (_simulate(tmp_path / name, sizes=sizes, particles=79, seed=2) for name in ("one", "two"))
    assert one.sizes == (5, 7, 11, 22, 15, 19)
    assert np.bincount(pd.read_csv(one.truth).state).tolist() == list(one.sizes)
    assert one.stack.read_bytes() == two.stack.read_bytes()
    assert json.loads((tmp_path / "one" / "simulate.json").read_text())["nested"] is True


def test_signal_to_noise_is_that_asked_for(tmp_path: Path) -> None:
    plain, noisy = (_simulate(tmp_path / noise, states=4, particles=80, noise=noise) for noise in ("none", "white"))
    scale = json.loads((tmp_path / "white" / "simulate.json").read_text())["density_scale"]
    signal = scale * np.asarray(mrcfile.read(plain.stack), np.float64)
    noise = mrcfile.read(noisy.stack) - signal
    assert noise.var() == pytest.approx(1.0, rel=0.05)
    assert signal.var(axis=(1, 2)).mean() == pytest.approx(0.1, rel=0.03)


def test_command_line_takes_both_options(tmp_path: Path) -> None:
    words = [str(tmp_path / "sim"), "--nested", "--domain-share", "0.06", "--states", "3", "--particles", "6"]
    outcome = CliRunner().invoke(command, [*words, "--box", "16", "--angpix", "20"], catch_exceptions=False)
    assert outcome.exit_code == 0
    states = [read_map(tmp_path / "sim" / f"state_{number:02d}.mrc")[0] for number in range(3)]
    np.testing.assert_allclose(_shares_left(states), [1, 0.94, 0.88], atol=1e-4)


def test_sixteen_states_of_the_real_ribosome(shared_data: Path) -> None:
    volume, _ = read_map(shared_data / "maps" / "ribosome70S_65px_5A.mrc")
    states = nested_states(volume, 16, 0.05, 0)
    np.testing.assert_allclose(_shares_left(states), 1 - 0.05 * np.arange(16), atol=1e-4)
    for larger, smaller in pairwise(states):
        assert np.linalg.norm(larger - smaller) > 0.15 * np.linalg.norm(volume)
