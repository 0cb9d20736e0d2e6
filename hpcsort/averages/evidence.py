"""Whether averages are copies of one view but for noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

from hpcsort.averages.prepare import PreparedAverages
from hpcsort.averages.similarity import MAX_SHIFT
from hpcsort.parallel import stream
from hpcsort.planar import PlanarPoses, apply_poses, refine_poses, soft_disc

__all__ = ["FamilyTest", "judge_one_family"]

_TURNS = 99
_MARGIN = 1.15
_FLOOR = 0.2
"""Of the length of an average: noise that each is taken to have beside its own. Interpolation and content that a shift
moves over the edge leave as much in common as families that differ little, but only in what is small beside this."""

Spectra = npt.NDArray[np.complex128]


@dataclass(frozen=True)
class FamilyTest:
    """Result of the test.

    Attributes
    ----------
    common : largest eigenvalue of the correlations between what the averages leave beside their mean.
    by_chance : the largest that turned residuals gave.
    p : share of turned sets that gave as much or more; never below 1 / (turns + 1).
    """

    common: float
    by_chance: float
    p: float

    @property
    def one_family(self) -> bool:
        """Whether the averages are no more alike among each other than noisy copies of one view."""
        return self.common <= _MARGIN * self.by_chance


def judge_one_family(prepared: PreparedAverages, poses: PlanarPoses, reference: int, seed: int) -> FamilyTest:
    """Test whether averages differ by more than noise.

    All averages are brought onto one of them. What each leaves beside the mean is, for copies of one view, noise that
    has nothing in common with the noise of another; families leave residuals that are alike in pairs. The largest
    eigenvalue of the residuals' correlations is therefore compared with that of residuals of which each is turned by a
    random angle, mirrored and changed in sign at random: that keeps everything of a residual but what it has in common
    with others, as noise is the same in all directions. (Parallel analysis, Horn 1965, with turns as permutations.)
    A set is taken for one family unless its eigenvalue is 15 % above that of all 99 turned sets; simulated copies of
    one view were divided in fewer than one of a hundred sets.

    Parameters
    ----------
    prepared : n averages.
    poses : of all in the frame of one.
    reference : that one.
    seed : of the turns.
    """
    grid, count = prepared.grid, len(prepared)
    onto = np.repeat(prepared.samples[reference][None], count, axis=0)
    poses, _ = refine_poses(grid, prepared.samples, onto, poses, MAX_SHIFT * grid.box_px)
    # what one average has lost over its edge is no difference: only the disc that all of them cover counts
    lost = np.linalg.norm(poses.offsets_px, axis=1).max()
    covered = soft_disc(grid.box_px, max(grid.mask_radius_px - lost, 0.75 * grid.mask_radius_px))
    aligned = grid.spectra(grid.samples(apply_poses(prepared.images, poses) * covered)).astype(np.complex128)
    value, signal, residual = _common(aligned)
    orders = np.arange(grid.orders)
    by_chance = []
    for number in range(_TURNS):
        rng = stream(seed, "turns", number)
        turned = residual * np.exp(1j * np.outer(rng.uniform(0, 2 * np.pi, count), orders))[:, None]
        turned = np.where(rng.random(count)[:, None, None] < 0.5, turned.conj(), turned)
        turned *= rng.choice([-1.0, 1.0], count)[:, None, None]
        by_chance.append(_common(signal + turned)[0])
    as_much = sum(chance >= value for chance in by_chance)
    return FamilyTest(value, max(by_chance), (1 + as_much) / (_TURNS + 1))


def _common(aligned: Spectra) -> tuple[float, Spectra, Spectra]:
    """Largest eigenvalue of the residuals' correlations; what of each average is the mean; the residuals."""
    flat = np.ascontiguousarray(aligned).reshape(len(aligned), -1).view(np.float64)
    mean = flat.mean(axis=0)
    power = mean @ mean
    signal = np.outer(flat @ mean / power if power > 0 else np.zeros(len(flat)), mean)
    residual = flat - signal
    length = np.sqrt((residual**2).sum(axis=1) + _FLOOR**2 * (flat**2).sum(axis=1))
    alike = residual @ residual.T / np.outer(length, length)
    np.fill_diagonal(alike, 1.0)
    value = scipy.linalg.eigvalsh(alike, subset_by_index=(len(alike) - 1, len(alike) - 1))[0]
    shape = aligned.shape
    return float(value), signal.view(np.complex128).reshape(shape), residual.view(np.complex128).reshape(shape)
