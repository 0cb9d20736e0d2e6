"""The programs as functions, for scripts and notebooks.

Every function takes the options of its program as keywords, or as the program's record of options, or both (keywords
then change the record); paths may be text. Results are typed, and the files are those of the command.

All functions are collective: under MPI every rank calls them alike, and ``mpiexec -n 4 python -m mpi4py script.py``
lets an error on one rank end the others. Without ``comm`` the ranks are all that the launcher started.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcsort._calls import FilePath, make_options, options_with_particles, ranks_of, teller
from hpcsort.averages import AveragesOptions, Findings
from hpcsort.averages import cluster_averages as _cluster_averages
from hpcsort.checking import CheckOptions, CheckResult
from hpcsort.checking import check as _check
from hpcsort.cl2d import Cl2dOptions, Cl2dResult
from hpcsort.cl2d import cl2d as _cl2d
from hpcsort.converting import ConvertOptions
from hpcsort.converting import convert as _convert
from hpcsort.io import ParticleTable, read_input, table_of_frame
from hpcsort.matching import MatchOptions, MatchResult
from hpcsort.matching import match as _match
from hpcsort.pairs import PairOptions, PairsResult
from hpcsort.pairs import extract_pairs as _extract_pairs
from hpcsort.parallel import Communicator, get_comm, together
from hpcsort.reconstruction import Reconstruction, ReconstructOptions, Source
from hpcsort.reconstruction import reconstruct as _reconstruct
from hpcsort.refinement import read_refinement
from hpcsort.simulation import SimulationOptions, SimulationResult
from hpcsort.simulation import simulate as _simulate
from hpcsort.sort3d import Group, SortOptions, SortResult
from hpcsort.sort3d import sort3d as _sort3d

__all__ = [
    "AveragesOptions",
    "CheckOptions",
    "CheckResult",
    "Cl2dOptions",
    "Cl2dResult",
    "ConvertOptions",
    "Findings",
    "Group",
    "MatchOptions",
    "MatchResult",
    "PairOptions",
    "PairsResult",
    "ParticleTable",
    "ReconstructOptions",
    "Reconstruction",
    "SimulationOptions",
    "SimulationResult",
    "SortOptions",
    "SortResult",
    "check",
    "cl2d",
    "cluster_averages",
    "convert",
    "extract_pairs",
    "get_comm",
    "match",
    "read_input",
    "reconstruct",
    "simulate",
    "sort3d",
    "table_of_frame",
]


def sort3d(
    particles: FilePath | ParticleTable | None = None,
    options: SortOptions | None = None,
    comm: Communicator | None = None,
    **keywords: Any,
) -> SortResult:
    """Sort particles into reproducible 3D groups and write them to ``output_dir``. Collective.

    Parameters
    ----------
    particles : STAR, .cs or EMAN2's HDF; or a table, which is written to ``<output_dir>_input.star`` first, so that
        the run can go on later and its record is true. None where the options name a file or a refinement.
    options, keywords : see `SortOptions`; ``output_dir`` is needed.
    comm : all ranks of the run.

    Raises
    ------
    HpcsortError
        With one sentence, on every rank alike, for input, options or output that cannot be used.
    """
    ranks = ranks_of(comm)
    return _sort3d(options_with_particles(SortOptions, particles, options, keywords, "output_dir", ranks), ranks)


def match(
    particles: FilePath | ParticleTable | None = None,
    options: MatchOptions | None = None,
    comm: Communicator | None = None,
    **keywords: Any,
) -> MatchResult:
    """Give particles poses with probabilities by projection matching, written to ``output``. Collective.

    Parameters
    ----------
    particles : as of `sort3d`; a table is written to ``<output>_input.star``.
    options, keywords : see `MatchOptions`; ``references`` and ``output`` are needed.
    comm : all ranks of the run.

    Raises
    ------
    HpcsortError
        As `sort3d`.
    """
    ranks = ranks_of(comm)
    return _match(options_with_particles(MatchOptions, particles, options, keywords, "output", ranks), ranks)


def cl2d(
    particles: FilePath | ParticleTable | None = None,
    options: Cl2dOptions | None = None,
    comm: Communicator | None = None,
    **keywords: Any,
) -> Cl2dResult:
    """Classify particles in 2D, level by level, and write classes and cores to ``output_dir``. Collective.

    Parameters
    ----------
    particles : as of `sort3d`, or a bare stack of images.
    options, keywords : see `Cl2dOptions`; ``output_dir`` is needed.
    comm : all ranks of the run.

    Raises
    ------
    HpcsortError
        As `sort3d`.
    """
    ranks = ranks_of(comm)
    return _cl2d(options_with_particles(Cl2dOptions, particles, options, keywords, "output_dir", ranks), ranks)


def reconstruct(
    particles: FilePath | ParticleTable,
    options: ReconstructOptions | None = None,
    comm: Communicator | None = None,
    **keywords: Any,
) -> Reconstruction | None:
    """Reconstruct a map, half-maps and their FSC, written to ``output`` (folder/stem). Collective.

    Parameters
    ----------
    particles : STAR, .cs or EMAN2's HDF, the folder of a MERIDIEN refinement, or a table.
    options, keywords : see `ReconstructOptions`; ``output`` is needed.
    comm : all ranks of the run.

    Returns
    -------
    The result on rank 0, None elsewhere.

    Raises
    ------
    HpcsortError
        As `sort3d`.
    """
    chosen = make_options(ReconstructOptions, options, keywords)

    def read() -> Source:
        if isinstance(particles, ParticleTable):
            return Source(particles)
        if not Path(particles).is_dir():
            return Source(read_input(particles))
        found = read_refinement(particles, apply_noise=chosen.apply_noise)
        return Source(found.table, found.symmetry, found.radius_px, found.notes)

    return _reconstruct(chosen, read, ranks_of(comm), teller(chosen.quiet))


def cluster_averages(
    averages: FilePath | None = None,
    options: AveragesOptions | None = None,
    comm: Communicator | None = None,
    **keywords: Any,
) -> Findings | None:
    """Group class averages into families of like views, written to ``output_dir``. Collective.

    Parameters
    ----------
    averages : stack, RELION's classes or model STAR, folder of `cl2d`, or .xmd; None where the options name it.
    options, keywords : see `AveragesOptions`; ``output_dir`` is needed.
    comm : all ranks of the run.

    Returns
    -------
    The result on rank 0, None elsewhere.

    Raises
    ------
    HpcsortError
        As `sort3d`.
    """
    given = {} if averages is None else {"averages": Path(averages)}
    chosen = make_options(AveragesOptions, options, given | keywords)
    return _cluster_averages(chosen, ranks_of(comm), teller(chosen.quiet))


def extract_pairs(
    options: PairOptions | None = None, comm: Communicator | None = None, **keywords: Any
) -> PairsResult | None:
    """Cut particle pairs from untilted and tilted micrographs, written to ``output``. Collective.

    Parameters
    ----------
    options, keywords : see `PairOptions`; ``output``, ``box_px``, ``invert`` and the micrographs are needed.
    comm : all ranks of the run.

    Returns
    -------
    The result on rank 0, None elsewhere.

    Raises
    ------
    HpcsortError
        As `sort3d`.
    """
    chosen = make_options(PairOptions, options, keywords)
    return _extract_pairs(chosen, ranks_of(comm), teller(chosen.quiet))


def simulate(
    out: FilePath | None = None,
    options: SimulationOptions | None = None,
    comm: Communicator | None = None,
    **keywords: Any,
) -> SimulationResult:
    """Simulate particles of a molecule in several states into a folder; rank 0 works. Collective.

    Parameters
    ----------
    out : folder of the results; None where the options name it.
    options, keywords : see `SimulationOptions`.
    comm : all ranks of the run.

    Raises
    ------
    HpcsortError
        As `sort3d`.
    """
    given = {} if out is None else {"out": Path(out)}
    chosen, ranks = make_options(SimulationOptions, options, given | keywords), ranks_of(comm)
    made: SimulationResult | None = None
    with together(ranks):
        if ranks.is_root:
            made = _simulate(chosen)
    result: SimulationResult = ranks.bcast(made)
    return result


def check(particles: FilePath | None = None, options: CheckOptions | None = None, **keywords: Any) -> CheckResult:
    """Tell what is understood of an input, and what a sort of it takes. Not collective: one process works.

    Parameters
    ----------
    particles : STAR, .cs, EMAN2's HDF or .xmd; None where the options name a file or a refinement.
    options, keywords : see `CheckOptions`.

    Raises
    ------
    HpcsortError
        As `sort3d`.
    """
    given = {} if particles is None else {"source": Path(particles)}
    return _check(make_options(CheckOptions, options, given | keywords))


def convert(source: FilePath, target: FilePath, options: ConvertOptions | None = None, **keywords: Any) -> list[Path]:
    """Convert particles between programs, whole or in part. Not collective: one process works.

    Parameters
    ----------
    source, target : what to read, and the file to write or the folder of lists.
    options, keywords : see `ConvertOptions`.

    Returns
    -------
    The files that were written.

    Raises
    ------
    HpcsortError
        As `sort3d`.
    """
    given = {"source": Path(source), "target": Path(target)}
    files: list[Path] = _convert(make_options(ConvertOptions, options, given | keywords), teller(quiet=True))["files"]
    return files
