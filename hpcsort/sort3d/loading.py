"""From files to particles in memory: the table, the images on the ranks that own them, half-sets."""

from __future__ import annotations

import numpy as np

from hpcsort.errors import InputError
from hpcsort.geometry import direction_order, relion_matrices
from hpcsort.images import BandData, Poses, SmearedData, joined_poses, load_band
from hpcsort.io import BadImage, ImageReader, ParticleTable, judge_images
from hpcsort.parallel import Communicator, raise_together, stream
from hpcsort.sort3d.options import SortOptions
from hpcsort.sort3d.store import ParticleStore, deal_particles

__all__ = ["half_sets", "load_particles", "shown_images"]

_FEWEST = 40


def shown_images(table: ParticleTable, rows: np.ndarray) -> np.ndarray:
    """Return the number of each particle's image, int64 (n,), by first appearance; symmetry mates share an image.

    Halves that are to share no noise are halves of the images.
    """
    places = np.stack([table.stack_id[rows], table.stack_index[rows]], axis=1)
    _, first, image = np.unique(places, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return rank[image.reshape(-1)]


def half_sets(table: ParticleTable, rows: np.ndarray, images: np.ndarray, seed: int) -> np.ndarray:
    """Half-sets of the refinement where the table has both, else random ones of the ``images`` (`shown_images`)."""
    subset = table.random_subset[rows]
    if {1, 2} <= set(np.unique(subset).tolist()):
        drawn = stream(seed, "half-sets").integers(0, 2, len(rows))[images]
        return np.where(subset > 0, subset - 1, drawn).astype(np.int64) % 2
    return np.asarray((stream(seed, "half-sets").permutation(int(images.max()) + 1) % 2)[images], np.int64)


def load_particles(
    options: SortOptions, table: ParticleTable, comm: Communicator, limit: int, radius_px: int
) -> tuple[ParticleStore, np.ndarray, list[BadImage]]:
    """Every rank reads its own particles; bad images are refused together, or left out."""
    identity = _identity(table)
    mates = _symmetry_mates(identity, options)
    matrices = relion_matrices(table.angles_deg) @ mates
    rows = direction_order(matrices, identity)
    chunks, dealt = deal_particles(len(rows), comm, None if table.smears is None else table.smears.counts[rows])
    mine = dealt[comm.rank]
    own = rows[chunks[mine[0]][0] : chunks[mine[-1]][1]] if mine else rows[:0]
    found: list[BadImage] = []

    def inspect(chosen: np.ndarray, images: np.ndarray) -> None:
        comm.beat()
        bad = judge_images(images, chosen, table)
        found.extend(bad)
        # What is left out or refused below shall not get into sums before, nor be refused for another reason.
        images[np.isin(chosen, [image.row for image in bad])] = 0.0

    error: Exception | None = None
    try:
        with ImageReader(table) as reader:
            data = load_band(
                table,
                own,
                matrices[own],
                limit,
                reader.read,
                particle_radius_px=radius_px,
                inspect=inspect,
            )
    except Exception as caught:
        error = caught
    raise_together(comm, error)
    bad = [image for part in comm.allgather(found) for image in part]
    if bad and not options.skip_bad:
        listed = "; ".join(image.describe() for image in bad[:5])
        more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise_together(
            comm, InputError(f"{len(bad)} bad images: {listed}{more}; mend them, or go on without with --skip-bad.")
        )
    store = ParticleStore(comm, len(rows), chunks, mine, _with_poses(data, table, own, mates, options))
    if bad:
        good = ~np.isin(rows, [image.row for image in bad])
        store, rows = store.restricted(good), rows[good]
    if len(rows) < _FEWEST:
        raise_together(
            comm, InputError(f"only {len(rows)} good images are left of {len(table)}; at least {_FEWEST} are needed.")
        )
    return store, rows, bad


def _symmetry_mates(identity: np.ndarray, options: SortOptions) -> np.ndarray:
    """Operators (n, 3, 3) that turn every particle into one of its symmetry mates, drawn by its identity.

    Poses of a symmetric particle lie in one asymmetric unit; spread over all of them, sections cover Fourier space
    evenly and maps come out symmetric but for noise, at no cost.
    """
    operators = options.operators()
    drawn = np.zeros(len(identity), np.int64)
    if len(operators) > 1:
        drawn[np.argsort(identity, kind="stable")] = stream(options.seed, "mates").integers(
            0, len(operators), len(identity)
        )
    return np.asarray(operators[drawn])


def _with_poses(
    data: BandData, table: ParticleTable, own: np.ndarray, mates: np.ndarray, options: SortOptions
) -> BandData | SmearedData:
    """Give particles all their poses where the table has them; ``own`` are the table's rows of ``data``."""
    if table.smears is None:
        return data
    assert table.box_px is not None
    smears = table.smears.rows(own)
    owner, counts = smears.owner, smears.counts
    rotations = (relion_matrices(smears.angles_deg) @ mates[own][owner]).astype(np.float32)
    weight = smears.weight.astype(np.float32)
    best = np.zeros_like(weight)
    best[smears.first[:-1]] = 1.0
    poses = Poses(
        smears.first,
        rotations,
        ((smears.shifts_px - np.repeat(table.shifts_px[own], counts, axis=0)) / table.box_px).astype(np.float32),
        weight,
        weight if options.scores == "marginal" else best,
        np.ones_like(weight),
    )
    return SmearedData(data, joined_poses(poses, data.radius), precompute=not options.compute_on_the_fly)


def _identity(table: ParticleTable) -> np.ndarray:
    """Key of a particle that does not depend on its row, for breaking ties of the order."""
    return np.array(
        [
            f"{table.stack_names[stack]}@{index:09d}"
            for stack, index in zip(table.stack_id, table.stack_index, strict=True)
        ]
    )
