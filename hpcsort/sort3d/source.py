"""What a sort starts from: particles or a finished refinement, and masks; read on the master, then shared."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hpcsort.errors import InputError, OptionError
from hpcsort.geometry import point_group, relion_matrices
from hpcsort.io import ParticleTable, read_input
from hpcsort.parallel import Communicator, together
from hpcsort.reconstruction import expand_symmetry
from hpcsort.refinement import Refinement, read_refinement, smear_note
from hpcsort.sort3d.options import SortOptions
from hpcsort.volumes import read_mask

__all__ = ["Source", "read_source"]

_FEWEST = 40
_ONE_VIEW_DEG = 1.0


@dataclass(frozen=True)
class Source:
    """Input of a sort.

    Attributes
    ----------
    options : what is asked for; radius, mask and symmetry are the refinement's where the user gave none.
    table : particles, the same on every rank.
    mask : float32 (box, box, box) of the particle, or None; on rank 0.
    focus : float32 (box, box, box) where differences are looked for, or None; on rank 0.
    notes : what was found, in plain sentences.
    """

    options: SortOptions
    table: ParticleTable
    mask: np.ndarray | None
    focus: np.ndarray | None
    notes: tuple[str, ...]


def read_source(options: SortOptions, comm: Communicator) -> Source:
    """Read and check everything but the images. Collective.

    Raises
    ------
    InputError, OptionError
        In one sentence, on every rank alike.
    """
    found: Source | None = None
    with together(comm):
        if comm.is_root:
            found = _read(options)
    bare = comm.bcast(None if found is None else replace(found, mask=None, focus=None))
    return bare if found is None else found


def _read(options: SortOptions) -> Source:
    notes: tuple[str, ...] = ()
    if options.refinement_dir is not None:
        refinement = read_refinement(
            options.refinement_dir,
            iteration=options.niter_for_sorting,
            datadir=options.datadir,
            apply_noise=not options.notapplybckgnoise,
        )
        table, options = refinement.table, _with_defaults(options, refinement)
        notes = (f"Iteration {refinement.iteration} of the refinement is used.", *refinement.notes)
    else:
        assert options.instack is not None
        table = read_input(options.instack, datadir=options.datadir, angpix=options.angpix)
    place = options.source
    if table.box_px is None:
        raise InputError(f"no image stack of {place} was found; name its folder with --datadir.")
    options.check_box(table.box_px)
    if len(table) < _FEWEST:
        raise InputError(f"{place} holds {len(table)} particles, too few to sort; give at least {_FEWEST}.")
    if options.img_per_grp is not None and options.img_per_grp > len(table):
        raise OptionError(
            f"--img-per-grp {options.img_per_grp} is more than the {len(table)} particles of {place}; give at most"
            f" {len(table)}."
        )
    _refuse_one_view(table, options)
    pixel_size_A = table.pixel_size_A
    mask, focus = (
        None if path is None else read_mask(path, table.box_px, pixel_size_A)
        for path in (options.mask3D, options.focus)
    )
    smears = table.smears
    if smears is not None:
        if options.nsmear is not None:
            smears = smears.limited(options.nsmear)
            table = replace(table, smears=smears)
        notes = (*notes, smear_note(smears))
    if options.expand:
        operators = point_group(options.sym)
        table = expand_symmetry(table, operators, seed=options.seed)
        notes = (*notes, f"Each particle is sorted {len(operators)} times, once for each mate of {options.sym}.")
    return Source(options, table, mask, focus, (*table.notes, *notes))


def _refuse_one_view(table: ParticleTable, options: SortOptions) -> None:
    """Refuse particles that are all seen along one axis, symmetry mates included: sections of one plane."""
    views = relion_matrices(table.angles_deg)[:, 2]
    scatter = views.T @ views / len(views)
    spread = np.mean([mate.T @ scatter @ mate for mate in point_group(options.sym)], axis=0)
    if np.linalg.eigvalsh(spread)[-1] > np.cos(np.deg2rad(_ONE_VIEW_DEG)) ** 2:
        raise InputError(
            f"all {len(table)} particles of {options.source} show one view within {_ONE_VIEW_DEG:g} degree, rot"
            f" {table.angles_deg[0, 0]:.4g} and tilt {table.angles_deg[0, 1]:.4g}, from which no 3D map follows; give"
            " the particles of a 3D refinement."
        )


def _with_defaults(options: SortOptions, refinement: Refinement) -> SortOptions:
    """Take radius, mask and symmetry from the refinement where the user gave none."""
    return replace(
        options,
        radius=refinement.radius_px if options.radius is None else options.radius,
        mask3D=refinement.mask if options.mask3D is None else options.mask3D,
        sym=refinement.symmetry.lower() if options.sym.lower() == "c1" else options.sym,
    )
