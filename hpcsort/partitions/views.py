"""Whether a group looks from other directions than the rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcsort.geometry import spiral_directions
from hpcsort.partitions.association import Explanation, explain_groups

_HIGHEST_DEGREE = 20
_CHUNK = 1 << 16


def compare_views(
    directions: ArrayLike,
    labels: ArrayLike,
    operators: ArrayLike | None = None,
    *,
    axial: bool = True,
    clusters: ArrayLike | None = None,
    functions: int = 27,
) -> Explanation:
    """Compare the view directions of each group with those of all other groups.

    Membership is regressed on low-degree spherical harmonics of the direction: the score test of Beran's exponential
    family (Ann. Stat. 7 (1979) 1162), a Sobolev test (Wellner, Ann. Stat. 7 (1979) 929) with the weights that make it
    the same whatever the distribution of all views, even or preferred. It does not depend on the frame.

    Parameters
    ----------
    directions : (N, 3) float
        Unit vectors along the beam, (x, y, z) in the frame of the volume.
    labels : (N,) int
        Groups from 0; unassigned particles (-1) are left out.
    operators : (g, 3, 3) float, optional
        Rotations of the point group in the frame of the volume: equivalent directions count as one.
    axial : bool
        Whether a direction and its opposite (mirror images of one another) count as one.
    clusters : (N,) int, optional
        Micrograph of each particle, where views of one micrograph may be alike.
    functions : int
        Degrees are taken until there are this many functions (degree 20 at most): 27 are degrees 2, 4 and 6
        without symmetry, which resolve about 30 degrees.

    Returns
    -------
    Explanation: `moved` near 1 says that a group is nothing but a range of views.
    """
    return explain_groups(view_features(directions, operators, axial=axial, functions=functions), labels, clusters)


def view_features(
    directions: ArrayLike, operators: ArrayLike | None = None, *, axial: bool = True, functions: int = 27
) -> NDArray[np.float64]:
    """Return real spherical harmonics (N, k) of the directions that are the same for all mates, without the constant.

    Parameters and choice of degrees as in `compare_views`; orthonormal on the sphere.
    """
    vectors = np.asarray(directions, np.float64)
    if vectors.ndim != 2 or vectors.shape[1] != 3:
        raise ValueError(f"directions must be of shape (n, 3), not {vectors.shape}")
    if not np.isfinite(vectors).all() or (np.abs((vectors**2).sum(axis=1) - 1) > 1e-4).any():
        raise ValueError("directions must be unit vectors")
    group = np.eye(3)[None] if operators is None else np.asarray(operators, np.float64).reshape(-1, 3, 3)
    bases: dict[int, NDArray[np.float64]] = {}
    step = 2 if axial else 1
    for degree in range(step, _HIGHEST_DEGREE + 1, step):
        if sum(basis.shape[1] for basis in bases.values()) >= functions:
            break
        bases[degree] = _invariants(degree, group)
    width = sum(basis.shape[1] for basis in bases.values())
    features = np.empty((len(vectors), width))
    for start in range(0, len(vectors), _CHUNK):
        rows = slice(start, start + _CHUNK)
        values = real_harmonics(vectors[rows], max(bases))
        parts = [values[degree**2 : (degree + 1) ** 2].T @ basis for degree, basis in bases.items()]
        features[rows] = np.concatenate(parts, axis=1)
    return features


def real_harmonics(directions: NDArray[np.float64], highest: int) -> NDArray[np.float64]:
    """Return the orthonormal real spherical harmonics of all degrees up to the highest.

    Parameters
    ----------
    directions : (n, 3) float64
        Unit vectors (x, y, z).
    highest : int
        Highest degree.

    Returns
    -------
    ((highest + 1)^2, n) float64, row l^2 + l + m for degree l and order m (sine for m < 0, cosine for m > 0, no
    Condon-Shortley sign). The recurrence in the degree is the stable one (Press et al., Numerical Recipes, 6.7).
    """
    x, y, z = directions.T
    out = np.empty(((highest + 1) ** 2, len(directions)))
    # sin^m(theta) times cosine and sine of m phi, which needs no angles and no division at the poles.
    cosine, sine = np.ones_like(x), np.zeros_like(x)
    top = np.sqrt(1 / (4 * np.pi))
    for m in range(highest + 1):
        if m:
            cosine, sine = x * cosine - y * sine, x * sine + y * cosine
            top *= np.sqrt((2 * m + 1) / (2 * m))
        before, here = np.zeros_like(z), np.full_like(z, top)
        scale = np.sqrt(2.0) if m else 1.0
        for degree in range(m, highest + 1):
            out[degree**2 + degree + m] = scale * here * cosine
            if m:
                out[degree**2 + degree - m] = scale * here * sine
            up = np.sqrt((2 * degree + 1) * (2 * degree + 3) / ((degree + 1 - m) * (degree + 1 + m)))
            back = ((degree - m) * (degree + m)) / ((2 * degree - 1) * (2 * degree + 1))
            before, here = here, up * (z * here - np.sqrt(back) * before)
    return out


def _invariants(degree: int, group: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return orthonormal combinations (2 l + 1, k) of the harmonics of one degree that are the same for all mates."""
    rows = slice(degree**2, (degree + 1) ** 2)
    samples = spiral_directions(2 * (2 * degree + 1))
    own = real_harmonics(samples, degree)[rows].T
    mean = np.mean([real_harmonics(samples @ turn.T, degree)[rows].T for turn in group], axis=0)
    projector = np.linalg.lstsq(own, mean, rcond=None)[0]
    shares, axes = np.linalg.eigh((projector + projector.T) / 2)
    return np.asarray(axes[:, shares > 0.5])
