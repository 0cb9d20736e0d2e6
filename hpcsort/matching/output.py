"""What match writes: the STAR file with the best poses and the smear table beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from hpcsort.errors import OutputError
from hpcsort.io import ParticleTable, Smears, write_particles, write_smears
from hpcsort.matching.options import MatchOptions

__all__ = ["check_output", "smear_path", "write_matches"]


def smear_path(star: Path) -> Path:
    """Where the smear table of a STAR file lies."""
    return star.with_name(f"{star.stem}_smears.h5")


def check_output(options: MatchOptions, table: ParticleTable) -> None:
    """Refuse an output that cannot be written, before the search.

    Raises
    ------
    OutputError
        If a file exists and is not to be replaced, is an input, or its folder is missing.
    """
    inputs = [options.instack, *options.references, *table.stack_paths]
    if options.output.suffix != ".star":
        raise OutputError(f"--output {options.output} does not end in .star; give the name of a STAR file")
    for path in (options.output, smear_path(options.output)):
        if not path.parent.is_dir():
            raise OutputError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; give the name of a file")
        if any(path.exists() and source.exists() and path.samefile(source) for source in inputs):
            raise OutputError(f"--output {path} would replace an input; choose another name")
        if path.exists() and not options.overwrite:
            raise OutputError(f"{path} exists already; choose another name or allow replacing it with --overwrite")


def write_matches(
    options: MatchOptions,
    table: ParticleTable,
    smears: Smears,
    reference: np.ndarray,
    probabilities: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Write the smear table, then the STAR file that names it.

    The best pose is the likeliest smear; every other column of the input stays, but origins in pixels give way to
    those in Angstrom.
    """
    best = smears.first[:-1]
    angles, origins = smears.angles_deg[best], smears.shifts_px[best] * table.pixel_sizes_A[:, None]
    extra = {
        "rlnAngleRot": angles[:, 0],
        "rlnAngleTilt": angles[:, 1],
        "rlnAnglePsi": angles[:, 2],
        "rlnOriginXAngst": origins[:, 0],
        "rlnOriginYAngst": origins[:, 1],
        "rlnClassNumber": reference + 1,
        "rlnLogLikeliContribution": scores,
        # of the whole probability, not of what is listed
        "rlnMaxValueProbDistribution": smears.weight[best] * (1.0 - smears.dropped),
        "rlnNrOfSignificantSamples": smears.counts,
    }
    if probabilities.shape[1] > 1:
        extra |= {f"hpcsortReferenceProbability{k + 1}": column for k, column in enumerate(probabilities.T)}
    # decimals as RELION writes them; the poses in the table of smears are exact
    columns = {name: np.round(values, 6) if values.dtype.kind == "f" else values for name, values in extra.items()}
    beside = smear_path(options.output)
    names = table.frame["rlnImageName"].tolist()
    write_smears(beside, smears, names, overwrite=options.overwrite)
    named = replace(
        table,
        frame=table.frame.drop(columns=["rlnOriginX", "rlnOriginY"], errors="ignore"),
    )
    write_particles(options.output, named, columns, smear_table=beside.name, overwrite=options.overwrite)
