"""What benchmarks/kernels.py times: particles at sorted views, volumes, and calls of the kernels with their counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import _kernel_counts as counts
import numpy as np
from numpy.typing import NDArray

from hpcsort import kernels

Array = NDArray[Any]
FIXED = 7  # maps of nuisances, which come before the others in the subspace and in the scores of classes
LEARNED = 18  # the widest band of the subspace: of wider ones a few particles would time the clearing of a volume
LATENT_PARTICLES = 512
_SORTED = 10_000  # particles of a set, of which a bench takes a run of neighbours
_SMEAR_RADIANS = 0.02


class Particles(NamedTuple):
    """Noise at sorted orientations; each repeat has orientations of its own, as the next particles would."""

    images: Array
    ctfs: Array
    rotations: Array
    px: Array
    py: Array
    pad: float
    half: int

    def data(self, repeat: int = 0) -> tuple[Any, Any, Any, Any, Any, float]:
        """Arguments that most kernels end with."""
        return self.images, self.ctfs, self.rotations[repeat], self.px, self.py, self.pad

    def first(self, n: int) -> Particles:
        """Return the first n particles."""
        return self._replace(images=self.images[:n], ctfs=self.ctfs[:n], rotations=self.rotations[:, :n].copy())


class Bench(NamedTuple):
    """One time to take: `run(repeat)` handles `items` Fourier pixels, or particles.

    `traffic` are the bytes an item that come from, and go to, L2, L3 and memory.
    """

    name: str
    maps: int
    items: int
    run: Callable[[int], Any]
    count: counts.Count
    traffic: tuple[float, float, float] = (0.0, 0.0, 0.0)
    precision: str = "single"


def sorted_rotations(n: int) -> Array:
    """Orientations that follow a spiral from pole to pole, with random in-plane angles."""
    rng = np.random.default_rng(0)
    cos_tilt = np.linspace(1, -1, n)
    sin_tilt = np.sqrt(1 - cos_tilt**2)
    rot, psi = np.pi * (1 + 5**0.5) * np.arange(n), rng.uniform(0, 2 * np.pi, n)
    # The golden spiral jumps around the axis; sorting by direction within bands of tilt brings neighbours together.
    order = np.lexsort((rot % (2 * np.pi), np.floor(np.arange(n) / np.sqrt(n))))
    rot, cos_tilt, sin_tilt = rot[order], cos_tilt[order], sin_tilt[order]
    view = np.stack([sin_tilt * np.cos(rot), sin_tilt * np.sin(rot), cos_tilt], axis=1)
    east = np.stack([-np.sin(rot), np.cos(rot), 0 * rot], axis=1)
    north = np.cross(view, east)
    c, s = np.cos(psi)[:, None], np.sin(psi)[:, None]
    return np.stack([c * east + s * north, -s * east + c * north, view], axis=1).astype(np.float32)


def smeared(rotations: Array, poses: int) -> Array:
    """Turn each orientation by a little into `poses` of its own, (n * poses, 3, 3)."""
    rng = np.random.default_rng(5)
    turns = np.eye(3) + _SMEAR_RADIANS * np.cross(np.eye(3), rng.standard_normal((len(rotations), poses, 1, 3)))
    rows = rotations[:, None] @ np.linalg.qr(turns)[0]
    return np.ascontiguousarray(rows.reshape(-1, 3, 3), np.float32)


def particles(pixels: int, radius: int, pad: int, poses: int = 1, repeats: int = 1) -> Particles:
    """Return noise images of about `pixels` Fourier pixels in all, the disc of `radius` pixels of each."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[-radius : radius + 1, 0 : radius + 1]
    keep = (x**2 + y**2 <= radius**2) & ((x > 0) | (y > 0))
    px, py = x[keep].astype(np.float32), y[keep].astype(np.float32)
    n = max(-(-pixels // (px.size * poses)), 8 // poses)  # a few, and an even number of rows
    n += n % 2
    images = rng.standard_normal((n * poses, 2 * px.size), np.float32).view(np.complex64)
    ctfs = rng.uniform(-1, 1, images.shape).astype(np.float32)
    start = rng.integers(0, _SORTED - repeats * n, endpoint=True)
    views = sorted_rotations(_SORTED)[start : start + repeats * n]
    rotations = smeared(views, poses) if poses > 1 else views
    return Particles(
        images, ctfs, rotations.reshape(repeats, n * poses, 3, 3), px, py, float(pad), kernels.half_width(radius, pad)
    )


def fresh_bytes(
    p: Particles, voxel_bytes: int, step: int, held: float, least: int = 1, most: int | None = None
) -> float:
    """Bytes per pixel of the whole cache lines that sections touch, if a cache of `held` bytes remembers some of them.

    The sections are those of every `step`-th particle; lines count once for as many sections one after the other as the
    cache holds, at least `least` and not more than `most`.
    """
    line, side = max(voxel_bytes, 64), 2 * p.half + 1
    touched = np.zeros(side * side * (p.half + 1) * voxel_bytes // line + 1, bool)
    chosen, best = p.rotations[0, ::step, :2].astype(np.float64)[:most], 0.0
    for taken, a in enumerate(chosen, start=1):
        point = p.pad * (np.outer(p.px, a[0]) + np.outer(p.py, a[1]))
        floor = np.floor(point * np.where(point[:, :1] < 0, -1, 1)).astype(np.int64)
        corners = floor[:, None] + np.stack(np.indices((2, 2, 2)), axis=-1).reshape(-1, 3)
        voxel = ((corners[..., 2] + p.half) * side + corners[..., 1] + p.half) * (p.half + 1) + corners[..., 0]
        touched[voxel * voxel_bytes // line] = True
        size = float(np.count_nonzero(touched)) * line
        if taken > least and size > held:
            break
        best = size / (taken * p.px.size)
    return best


def pixel_benches(p: Particles, maps: int, pool: Array, caches: tuple[int, ...]) -> list[Bench]:
    """Return calls of the kernels that read and write volumes; these lie in `pool`, float32, and must fit there.

    `caches` are the sizes of the caches in bytes.
    """
    n, pixels = p.images.shape
    shape = (2 * p.half + 1, 2 * p.half + 1, p.half + 1)
    voxels, benches = int(np.prod(shape)), []
    rows, rng = np.arange(n, dtype=np.int32), np.random.default_rng(3)
    labels, second = (np.asarray(rng.integers(0, maps, n), np.int32) for _ in range(2))
    ones, joint = np.ones(2 * n, np.float32), FIXED + maps
    coefficients, section = np.ones((n, maps), np.float32), np.empty_like(p.images)
    moments, weights = np.ones((n, maps), np.float32), np.ones((n, maps * (maps + 1) // 2 + FIXED * maps), np.float32)
    twice, both = np.repeat(rows, 2), np.stack([labels, second], axis=1).reshape(-1)

    def add(
        name: str, run: Callable[[Array, int], Any], held: tuple[int, ...], count: counts.Count,
        classes: int = 1, ways: int = 1, entries: int = 1, together: int = 1,
    ) -> None:  # fmt: skip
        """Add a bench of an array of shape `held` in which `classes` volumes are visited one after the other."""
        size = int(np.prod(held))
        if size > pool.size:
            return
        array, voxel_bytes = pool[:size].reshape(held), 4 * size // (voxels * classes)
        traffic = [
            ways * fresh_bytes(p, voxel_bytes, classes, cache, together) if voxels * voxel_bytes > cache else 0.0
            for cache in caches
        ]
        run_on = partial(run, array)
        benches.append(Bench(name, maps, entries * n * pixels, run_on, count, (traffic[0], traffic[1], traffic[2])))

    lanes, all_lanes = kernels.lane_count(maps), kernels.lane_count(joint)
    add("score_sections", lambda a, r: kernels.score_sections(a, maps, *p.data(r)), (*shape, 2, lanes),
        counts.score_sections(maps))  # fmt: skip
    add("section_moments", lambda a, r: kernels.section_moments(a, joint, *p.data(r), rows=rows),
        (*shape, 2, all_lanes), counts.section_moments(joint))  # fmt: skip
    add("subtract_sections",
        lambda a, r: kernels.subtract_sections(a, maps, coefficients, *p.data(r), out=section),
        (*shape, 2, lanes), counts.subtract_sections(maps))  # fmt: skip
    add("leave_one_out_gains",
        lambda a, r: kernels.leave_one_out_gains(a, None, labels, ones[:n], *p.data(r), rows=rows),
        (maps, *shape, 4), counts.leave_one_out_gains(maps), classes=maps)  # fmt: skip

    def insert(out: Array, repeat: int, own: Array, chosen: Array | None) -> None:
        given = p.data(repeat)
        kernels.insert_sections(*given[:3], own, ones[: own.size], *given[3:], out=out, rows=chosen)

    add("insert_sections", lambda a, r: insert(a, r, labels, None), (maps, *shape, 4),
        counts.insert_sections(maps), classes=maps, ways=2)  # fmt: skip
    add("insert_sections, entries", lambda a, r: insert(a, r, both, twice), (maps, *shape, 4),
        counts.insert_sections(maps), classes=maps, ways=2, entries=2)  # fmt: skip

    def backproject(out: Array, repeat: int) -> None:
        given = p.data(repeat)
        kernels.backproject_moments(*given[:3], moments, weights, *given[3:], out=out, rows=rows)

    if max(p.px) <= LEARNED:
        length = kernels.moment_record_length(maps, weights.shape[1])
        touched = fresh_bytes(p, 64, 1, np.inf, most=2) / 64  # voxels of a pair, per pixel
        add("backproject_moments", backproject, (*shape, length),
            counts.backproject_moments(maps, weights.shape[1], touched), ways=2, together=2)  # fmt: skip
    return benches


def latent_benches(maps: int) -> list[Bench]:
    """Return calls of the kernels of latents, for seven nuisances and `maps` others."""
    n, size = LATENT_PARTICLES, FIXED + maps
    rng = np.random.default_rng(4)
    predicted = rng.standard_normal((n, 2 * size, size), np.float32)
    gram = np.ascontiguousarray((predicted.transpose(0, 2, 1) @ predicted)[:, *np.tril_indices(size)])
    linear = rng.standard_normal((n, size), np.float32)
    mean, covariance = kernels.latent_posteriors(linear, gram)
    transform = np.eye(size)
    return [
        Bench("latent_posteriors", maps, n, lambda _: kernels.latent_posteriors(linear, gram),
              counts.latent_posteriors(size), precision="double"),
        Bench("marginal_moments", maps, n, lambda _: kernels.marginal_moments(linear, gram, FIXED, 4.0),
              counts.marginal_moments(size, FIXED), precision="double"),
        Bench("moment_weights", maps, n, lambda _: kernels.moment_weights(mean, covariance, FIXED, transform),
              counts.moment_weights(size, FIXED), precision="double"),
    ]  # fmt: skip
