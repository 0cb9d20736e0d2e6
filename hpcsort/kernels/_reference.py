"""NumPy twins of the compiled kernels: the specification, and the oracle of their tests.

Every function has the signature of its counterpart in ``_native``: checked arrays in, results into preallocated
arrays. Sums run in float64, so that the twins are the more exact of the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def instruction_set() -> str:
    """Name this implementation."""
    return "numpy"


class _Section:
    """Where the pixels of one particle fall in a half volume: eight corners with trilinear weights."""

    def __init__(self, rotation: Array, px: Array, py: Array, pad: float, half: int) -> None:
        a = rotation.astype(np.float64)
        points = pad * (px[:, None] * a[0] + py[:, None] * a[1])
        # Only x >= 0 is stored: the other half follows from V(-k) = conj(V(k)).
        self.flipped = points[:, 0] < 0
        points[self.flipped] *= -1
        self._floor = np.floor(points).astype(np.int64)
        self._fraction = points - self._floor
        self._half = half

    def corners(self) -> Iterator[tuple[tuple[Array, Array, Array], Array]]:
        """Yield ((z, y, x) indices, weights) of each corner."""
        x, y, z = self._floor.T
        fx, fy, fz = self._fraction.T
        for dz in (0, 1):
            for dy in (0, 1):
                for dx in (0, 1):
                    weight = (fx if dx else 1 - fx) * (fy if dy else 1 - fy) * (fz if dz else 1 - fz)
                    # A point on the last lattice plane has weight zero beyond it, where nothing is stored.
                    yield (
                        (
                            _inside(z + dz + self._half, 2 * self._half),
                            _inside(y + dy + self._half, 2 * self._half),
                            _inside(x + dx, self._half),
                        ),
                        weight,
                    )

    def conjugate(self, values: Array) -> Array:
        """Conjugate the values (P, ...) of flipped pixels."""
        flipped = self.flipped.reshape(-1, *[1] * (values.ndim - 1))
        return np.where(flipped, values.conj(), values)

    def read(self, volume: Array) -> Array:
        """Interpolate a complex volume (z, y, x, ...) at the pixels: (P, ...)."""
        total = sum(_outer(weight, volume[index]) for index, weight in self.corners())
        return self.conjugate(np.asarray(total, dtype=np.complex128))


def _inside(index: Array, last: int) -> Array:
    return np.minimum(index, last)


def _outer(weight: Array, values: Array) -> Array:
    return weight.reshape(-1, *[1] * (values.ndim - 1)) * values


def _sections(interleaved: Array, count: int, rotations: Array, px: Array, py: Array, pad: float) -> Iterator[Array]:
    """Yield the sections (P, count) of all maps for each particle."""
    half = interleaved.shape[2] - 1
    volume = interleaved[..., 0, :count] + 1j * interleaved[..., 1, :count]
    for rotation in rotations:
        yield _Section(rotation, px, py, pad, half).read(volume)


def _chosen(rows: Array | None, *arrays: Array) -> tuple[Array, ...]:
    return arrays if rows is None else tuple(array[rows] for array in arrays)


def extract_sections(volume: Array, rotations: Array, px: Array, py: Array, pad: float, out: Array) -> None:
    """out[i, p] = trilinear value of the volume at the point of pixel p in view i."""
    for i, rotation in enumerate(rotations):
        out[i] = _Section(rotation, px, py, pad, volume.shape[2] - 1).read(volume)


def interleave(volumes: Array, out: Array) -> None:
    """out[z, y, x, 0 or 1, k] = real or imaginary part of volume k; empty lanes are zero."""
    out[...] = 0
    out[..., 0, : len(volumes)] = np.moveaxis(volumes.real, 0, -1)
    out[..., 1, : len(volumes)] = np.moveaxis(volumes.imag, 0, -1)


def score_sections(
    interleaved: Array,
    count: int,
    images: Array,
    ctfs: Array,
    rotations: Array,
    px: Array,
    py: Array,
    pad: float,
    cross: Array,
    power: Array,
) -> None:
    """Cross = sum_p c Re(conj(P_k) y), power = sum_p c^2 |P_k|^2."""
    for i, section in enumerate(_sections(interleaved, count, rotations, px, py, pad)):
        predicted = ctfs[i, :, None] * section
        cross[i] = (predicted.conj() * images[i, :, None]).real.sum(axis=0)
        power[i] = (np.abs(predicted) ** 2).sum(axis=0)


def section_moments(
    interleaved: Array,
    count: int,
    images: Array,
    ctfs: Array,
    rotations: Array,
    px: Array,
    py: Array,
    pad: float,
    rows: Array | None,
    linear: Array,
    gram: Array,
) -> None:
    """linear_a = sum_p c Re(conj(P_a) y); gram_ab = sum_p c^2 Re(conj(P_a) P_b), lower triangle row by row."""
    images, ctfs, rotations = _chosen(rows, images, ctfs, rotations)
    first, second = np.tril_indices(count)
    for i, section in enumerate(_sections(interleaved, count, rotations, px, py, pad)):
        predicted = ctfs[i, :, None] * section
        linear[i] = (predicted.conj() * images[i, :, None]).real.sum(axis=0)
        gram[i] = (predicted.conj().T @ predicted).real[first, second]


def insert_sections(
    images: Array,
    ctfs: Array,
    rotations: Array,
    labels: Array,
    weights: Array,
    px: Array,
    py: Array,
    pad: float,
    rows: Array | None,
    out: Array,
) -> None:
    """out[class, corner] += t w (c Re y, c Im y, c^2, 0); label -1 is left out."""
    for t in np.flatnonzero(labels >= 0):
        i = t if rows is None else rows[t]
        section = _Section(rotations[i], px, py, pad, out.shape[3] - 1)
        values = ctfs[i] * section.conjugate(images[i])
        record = weights[t] * np.stack([values.real, values.imag, ctfs[i] ** 2, np.zeros_like(ctfs[i])], axis=1)
        for index, weight in section.corners():
            np.add.at(out[labels[t]], index, _outer(weight, record))


def backproject_moments(
    images: Array,
    ctfs: Array,
    rotations: Array,
    z: Array,
    q: Array,
    px: Array,
    py: Array,
    pad: float,
    rows: Array | None,
    out: Array,
) -> None:
    """out[corner] += t (c Re(y) z | c Im(y) z | c^2 q | 0)."""
    images, ctfs, rotations = _chosen(rows, images, ctfs, rotations)
    moments = z.shape[1]
    for i, rotation in enumerate(rotations):
        section = _Section(rotation, px, py, pad, out.shape[2] - 1)
        values = ctfs[i] * section.conjugate(images[i])
        record = np.zeros((px.size, out.shape[3]))
        record[:, :moments] = values.real[:, None] * z[i]
        record[:, moments : 2 * moments] = values.imag[:, None] * z[i]
        record[:, 2 * moments : 2 * moments + q.shape[1]] = ctfs[i, :, None] ** 2 * q[i]
        for index, weight in section.corners():
            np.add.at(out, index, _outer(weight, record))


def add_rounded(total: Array, addend: Array, shift: float, clear: bool) -> float:
    """Total += (addend + shift) - shift; return the largest absolute value where the addend is not zero."""
    with np.errstate(invalid="ignore", over="ignore"):
        total += (addend.astype(np.float64) + shift) - shift
    peak = np.abs(total[addend != 0]).max(initial=0.0)
    if clear:
        addend[...] = 0
    return float(peak)


def subtract_sections(
    interleaved: Array,
    count: int,
    coefficients: Array,
    images: Array,
    ctfs: Array,
    rotations: Array,
    px: Array,
    py: Array,
    pad: float,
    out: Array,
) -> None:
    """Out = y - c sum_j coef_j P_j."""
    for i, section in enumerate(_sections(interleaved, count, rotations, px, py, pad)):
        out[i] = images[i] - ctfs[i] * (section @ coefficients[i])


def pack_ridge(volumes: Array, ridge: Array, out: Array) -> None:
    """out[k, z, y, x] = (re, im, ridge, 0)."""
    out[..., 0], out[..., 1], out[..., 2], out[..., 3] = volumes.real, volumes.imag, ridge, 0


def leave_one_out_gains(
    records: Array,
    labels: Array,
    factors: Array,
    images: Array,
    ctfs: Array,
    rotations: Array,
    px: Array,
    py: Array,
    pad: float,
    rows: Array | None,
    change: bool,
    out: Array,
) -> None:
    """gain_t = sum_p |y|^2 - |(y - c P) / (1 - min(h, 0.9))|^2 with h = factor c^2 sum over corners of t^2 ridge.

    With ``change`` |y - c P|^2 stands for |y|^2.
    """
    out[:] = 0
    for t in np.flatnonzero(labels >= 0):
        i = t if rows is None else rows[t]
        own = records[labels[t]].astype(np.float64)
        section = _Section(rotations[i], px, py, pad, own.shape[2] - 1)
        leverage = factors[t] * ctfs[i] ** 2 * sum(w**2 * own[index][:, 2] for index, w in section.corners())
        left = images[i] - ctfs[i] * section.read(own[..., 0] + 1j * own[..., 1])
        start = left if change else images[i].astype(np.complex128)
        out[t] = (np.abs(start) ** 2 - np.abs(left / (1 - np.minimum(leverage, 0.9))) ** 2).sum()


def latent_posteriors(linear: Array, gram: Array, mean: Array, covariance: Array) -> None:
    """Covariance = (2 gram + 1)^-1, mean = covariance 2 linear."""
    size = linear.shape[1]
    full = np.linalg.inv(2.0 * _unpacked(gram, size) + np.eye(size))
    mean[...] = np.einsum("nab,nb->na", full, 2.0 * linear)
    covariance[...] = full[:, *np.tril_indices(size)]


def moment_weights(mean: Array, covariance: Array, fixed: int, transform: Array, first: Array, second: Array) -> None:
    """E[z'] and E[z' z'^T] of z' = transform z: mixed with mixed, packed, then mixed with scaled."""
    size = mean.shape[1]
    moved = mean @ transform.T
    both = transform @ _unpacked(covariance, size) @ transform.T + moved[:, :, None] * moved[:, None, :]
    first[...] = moved[:, fixed:]
    free = size - fixed
    packed = both[:, fixed:, fixed:][:, *np.tril_indices(free)]
    second[...] = np.concatenate([packed, both[:, fixed:, :fixed].reshape(len(mean), free * fixed)], axis=1)


def marginal_moments(
    linear: Array,
    gram: Array,
    fixed: int,
    breadth: float,
    reduced: Array,
    precision: Array,
    rest: Array,
    pull: Array,
    evidence: Array,
) -> None:
    """Schur complement of the first latents' block of 2 gram + 1; evidence of these alone and of all."""
    size = linear.shape[1]
    joint, right = 2.0 * _unpacked(gram, size), 2.0 * linear.astype(np.float64)
    mixed = joint[:, :fixed, fixed:]
    both = np.concatenate([right[:, :fixed, None], mixed], axis=2)
    solved = np.linalg.solve(joint[:, :fixed, :fixed] + np.eye(fixed), both)
    rest[...], pull[...] = solved[:, :, 0], solved[:, :, 1:].transpose(0, 2, 1)
    reduced[...] = right[:, fixed:] - np.einsum("nsa,ns->na", mixed, solved[:, :, 0])
    full = joint[:, fixed:, fixed:] - np.einsum("nsa,nsb->nab", mixed, solved[:, :, 1:])
    precision[...] = full[:, *np.tril_indices(size - fixed)]
    evidence[:, 0] = _evidence(right[:, :fixed], joint[:, :fixed, :fixed], 1.0)
    evidence[:, 1] = _evidence(right, joint, breadth)


def _evidence(right: Array, joint: Array, breadth: float) -> Array:
    size = right.shape[1]
    system = breadth**2 * joint + np.eye(size)
    solved = np.linalg.solve(system, breadth * right[..., None])[..., 0]
    return np.asarray(0.5 * breadth * (right * solved).sum(axis=1) - 0.5 * np.linalg.slogdet(system)[1])


def _unpacked(packed: Array, size: int) -> Array:
    """Symmetric matrices (n, size, size) float64 from packed lower triangles."""
    rows, columns = np.tril_indices(size)
    full = np.empty((len(packed), size, size))
    full[:, rows, columns] = packed
    full[:, columns, rows] = packed
    return full
