"""Small particles, volumes and brute-force references shared by the tests of the kernels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from hpcsort import kernels

Array = NDArray[Any]


def half_plane(radius: int) -> tuple[Array, Array]:
    """Integer frequencies of a half disc without DC, row by row."""
    y, x = np.mgrid[-radius : radius + 1, 0 : radius + 1]
    keep = (x**2 + y**2 <= radius**2) & ((x > 0) | (y > 0))
    return x[keep].astype(np.float32), y[keep].astype(np.float32)


def generic_rotations(n: int, seed: int = 1) -> Array:
    return Rotation.random(n, random_state=np.random.default_rng(seed)).as_matrix().astype(np.float32).reshape(n, 3, 3)


def lattice_rotations() -> Array:
    """The 24 rotations that map the lattice to itself."""
    return np.rint(Rotation.create_group("O").as_matrix()).astype(np.float32)


def complex_noise(rng: np.random.Generator, *shape: int) -> Array:
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def hermitian_volumes(rng: np.random.Generator, count: int, half: int) -> tuple[Array, Array]:
    """Full volumes [k, z, y, x] with V(-r) = conj V(r), and their halves x >= 0."""
    full = complex_noise(rng, count, 2 * half + 1, 2 * half + 1, 2 * half + 1)
    full = (full + full[:, ::-1, ::-1, ::-1].conj()) / 2
    return full, np.ascontiguousarray(full[..., half:])


class Case(NamedTuple):
    """Particles with their geometry."""

    images: Array
    ctfs: Array
    rotations: Array
    px: Array
    py: Array
    pad: float
    half: int

    @property
    def data(self) -> tuple[Any, ...]:
        return self.images, self.ctfs, self.rotations, self.px, self.py, self.pad


def make_case(n: int, radius: int, pad: float, rotations: Array | None = None, seed: int = 5) -> Case:
    rng = np.random.default_rng([seed, n, radius])
    px, py = half_plane(radius)
    ctfs = rng.uniform(-1, 1, (n, px.size)).astype(np.float32)
    ctfs[:, ::5] = 0
    rotations = generic_rotations(n) if rotations is None else rotations
    return Case(complex_noise(rng, n, px.size), ctfs, rotations, px, py, pad, kernels.half_width(radius, pad))


def points_of(case: Case, i: int) -> Array:
    """Points (P, 3) as (z, y, x) in voxels from the centre."""
    a = case.rotations[i].astype(np.float64)
    return (case.pad * (np.outer(case.px, a[0]) + np.outer(case.py, a[1])))[:, ::-1]


def hat_weights(points: Array, half: int) -> Array:
    """Trilinear weights (P, z, y, x) of points in a full volume, as products of hat functions."""
    hats = np.maximum(0, 1 - np.abs(np.arange(-half, half + 1) - points[:, :, None]))
    return np.einsum("pz,py,px->pzyx", hats[:, 0], hats[:, 1], hats[:, 2])
