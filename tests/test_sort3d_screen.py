"""Images without a particle are found by their contrast, whatever the particles' own contrast is."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from sort3d_cases import (
    SIZE,
    band_data,
    blobs,
    exact_sections,
    make_store,
    noise,
    on_ranks,
    small_grid,
    transfer,
    views,
)

from hpcsort.images import BandData
from hpcsort.parallel import Communicator
from hpcsort.sort3d.consensus import Consensus
from hpcsort.sort3d.screen import emptiness
from hpcsort.sort3d.store import ParticleStore

_COUNT = 400
_STRENGTH = 1.0


@cache
def _sections() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rotations, ctfs = views(_COUNT, 1), transfer(_COUNT, 2)
    return ctfs * exact_sections(blobs(SIZE, 9), rotations), ctfs, rotations


def _consensus(strength: float = _STRENGTH) -> Consensus:
    grid = small_grid()
    volume = np.asarray(strength * blobs(SIZE, 9), np.float32)
    return Consensus(grid, volume, grid.to_fourier(volume), np.ones(grid.radius + 2))


def _images(contrast: np.ndarray, strength: float = _STRENGTH) -> BandData:
    """Residuals from the consensus of images in which the particle has a contrast of its own."""
    sections, ctfs, rotations = _sections()
    return band_data((contrast[:, None] - 1.0) * strength * sections + noise(_COUNT, 3), ctfs, rotations)


def _screened(contrast: np.ndarray, strength: float = _STRENGTH) -> np.ndarray:
    return emptiness(make_store(_images(contrast, strength)), _consensus(strength))


def _contrasts(mean: float, empty: int, spread: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(4)
    blank = draw.permutation(_COUNT) < empty
    return np.where(blank, 0.0, draw.normal(mean, spread * mean, _COUNT)), blank


@pytest.mark.parametrize("mean", [0.7, 1.0, 1.4])
@pytest.mark.parametrize("empty", [1, 20, 120])
def test_empty_images_are_found_whatever_the_mean_contrast(mean: float, empty: int) -> None:
    contrast, blank = _contrasts(mean, empty)
    found = _screened(contrast)
    np.testing.assert_array_equal(found > 0.5, blank)
    assert found.sum() == pytest.approx(empty, abs=0.5)


@pytest.mark.parametrize("spread", [0.0, 0.15])
def test_none_is_found_among_good_images(spread: float) -> None:
    contrast, _ = _contrasts(1.0, 0, spread)
    assert _screened(contrast).max() < 0.05


def test_probabilities_are_honest_where_images_tell_little() -> None:
    strength = 0.17
    contrast, blank = _contrasts(1.0, 100)
    found = _screened(contrast, strength)
    assert found[~blank].mean() > 0.02
    # Among those called empty with a probability about p, a share of p is.
    edges = [0.0, 0.1, 0.9, 1.01]
    for low, high in pairwise(edges):
        inside = (found >= low) & (found < high)
        assert inside.sum() > 20
        said = found[inside].mean()
        error = np.sqrt(said * (1 - said) / inside.sum())
        assert blank[inside].mean() == pytest.approx(said, abs=max(2.5 * error, 0.03))


def test_too_bright_is_not_empty() -> None:
    contrast, blank = _contrasts(1.0, 30)
    bright = np.flatnonzero(~blank)[:15]
    contrast[bright] = 2.5
    found = _screened(contrast)
    assert found[bright].max() < 0.01
    assert (found[blank] > 0.5).mean() > 0.9


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_the_answer_has_the_same_bits_on_any_ranks(ranks: int) -> None:
    contrast, _ = _contrasts(0.9, 50)
    data = _images(contrast)

    def work(comm: Communicator) -> bytes:
        store: ParticleStore = make_store(data, comm)
        return store.gathered(emptiness(store, _consensus())).tobytes()

    (alone,) = on_ranks(1, work)
    # More ranks than chunks leave some without a particle.
    assert set(on_ranks(ranks, work)) == {alone}
