"""The program match: reads, learns noise and amplitudes, searches, writes, and tells the story."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from hpcsort.errors import InputError, OptionError
from hpcsort.geometry import point_group, relion_angles, relion_matrices
from hpcsort.images import BandData, load_band
from hpcsort.io import ImageReader, ParticleTable, Smears, judge_images, read_input
from hpcsort.matching.calibration import Sample, calibrate, sample_rows
from hpcsort.matching.model import Model
from hpcsort.matching.options import MatchOptions
from hpcsort.matching.output import check_output, write_matches
from hpcsort.matching.posterior import Poses, pose_probabilities
from hpcsort.matching.references import References, read_reference, share_references
from hpcsort.matching.search import Plan, find_modes, make_plan
from hpcsort.matching.story import tell_edge, tell_end, tell_model, tell_plan
from hpcsort.parallel import (
    Communicator,
    Progress,
    StoryLog,
    cut_chunks,
    deal_chunks,
    peak_memory_GB,
    raise_together,
    together,
)

__all__ = ["MatchResult", "match"]

_SHARE, _MOST = 0.7, 40
"""Band limit where none is asked for: share of Nyquist, and Fourier pixels at most."""
_CHUNK = 48
"""Particles searched together: enough for the products of matrices, few enough for the cache."""


@dataclass(frozen=True)
class MatchResult:
    """Result of a search, on rank 0; the arrays are empty elsewhere.

    Attributes
    ----------
    smears : poses of all particles with probabilities; None elsewhere.
    reference : int64 (N,), the likeliest reference of each particle.
    probabilities : float64 (N, K), of the references.
    scores : float64 (N,), logarithm of the likelihood of the best pose, by that of noise alone.
    model : noise and amplitudes, on every rank; its references are given back at the end and must not be used.
    plan : grids and bands.
    """

    smears: Smears | None
    reference: np.ndarray
    probabilities: np.ndarray
    scores: np.ndarray
    model: Model
    plan: Plan


def match(options: MatchOptions, comm: Communicator) -> MatchResult:
    """Find the poses of particles by projection matching and write them. Collective.

    Results do not depend on the number of ranks.

    Parameters
    ----------
    options : what to match and how.
    comm : all ranks of the run.

    Raises
    ------
    HpcsortError
        With one sentence, on every rank alike, for input, options or output that cannot be used.
    """
    tell = StoryLog(None, comm, options.quiet)
    with threadpool_limits(1):
        table, maps = _read(options, comm)
        assert table.box_px is not None
        box, pixel_A = table.box_px, table.pixel_size_A
        with together(comm):
            band = _band(options, box, pixel_A)
        mask = options.mask_radius_px(box) / box
        references, shared = share_references(comm, maps, band, mask, box)
        plan = _plan(options, references, box, band)
        tell_plan(tell, options, table, plan, references, comm)
        search = _Search(comm, table, options, references, plan)
        model = search.calibrated()
        tell_model(tell, model, box * pixel_A)
        result = search.run(model)
        with together(comm):
            if comm.is_root:
                assert result.smears is not None
                write_matches(options, table, result.smears, result.reference, result.probabilities, result.scores)
        if result.smears is not None:
            moved = result.smears.shifts_px[result.smears.first[:-1]] - table.shifts_px
            tell_edge(tell, np.hypot(*moved.T), plan)
        tell_end(tell, options, result.smears, result.probabilities, result.reference, peak_memory_GB(comm))
        shared.free()
    return result


def _read(options: MatchOptions, comm: Communicator) -> tuple[ParticleTable, list[np.ndarray]]:
    """Read and check everything on the master, share the table."""
    found: ParticleTable | None = None
    maps: list[np.ndarray] = []
    with together(comm):
        if comm.is_root:
            table = read_input(
                options.instack,
                datadir=options.datadir,
                angpix=options.angpix,
                need_poses=options.local,
                need_ctf=options.use_ctf,
                smears=False,
            )
            if table.box_px is None:
                raise InputError(f"no image stack of {options.instack} was found; name its folder with --datadir")
            options.check_box(table.box_px)
            check_output(options, table)
            found = _started(table, options)
            maps = [read_reference(path, table.box_px, table.pixel_size_A) for path in options.references]
    return comm.bcast(found), maps


def _started(table: ParticleTable, options: MatchOptions) -> ParticleTable:
    """Where the search starts: origins that are not known are 0; without CTF its parameters do not matter."""
    changed: dict[str, np.ndarray] = {"shifts_px": np.where(np.isfinite(table.shifts_px), table.shifts_px, 0.0)}
    if not options.local:
        changed["angles_deg"] = np.zeros((len(table), 3))
    if not options.use_ctf:
        names = ("defocus_u_A", "defocus_v_A", "defocus_angle_deg", "phase_shift_deg", "cs_mm", "amplitude_contrast")
        changed |= {name: np.zeros(len(table)) for name in names} | {"voltage_kV": np.full(len(table), 300.0)}
    return replace(table, **changed)  # type: ignore[arg-type]


def _band(options: MatchOptions, box: int, pixel_A: float) -> int:
    if options.resolution_A is None:
        return int(max(min(round(_SHARE * box / 2), _MOST, box // 2 - 1), 2))
    band = int(np.floor(box * pixel_A / options.resolution_A + 1e-6))
    if not 2 <= band <= box // 2 - 1:
        finest, coarsest = box * pixel_A / (box // 2 - 1), box * pixel_A / 2
        raise OptionError(
            f"--resolution {options.resolution_A:g} does not fit images of {box} px of {pixel_A:g} A; give "
            f"{finest:.3g} to {coarsest:.3g} A"
        )
    return band


def _plan(options: MatchOptions, references: References, box: int, band: int) -> Plan:
    return make_plan(
        local=options.local,
        box=box,
        band=band,
        diameter=references.diameter,
        operators=point_group(options.sym),
        nside=None if options.healpix_order is None else 2**options.healpix_order,
        step_deg=options.angular_step_deg,
        angle_range_deg=options.angle_range_deg,
        shift_range=options.shift_range_px,
        shift_step=options.shift_step_px,
    )


class _Search:
    """One rank's part of a search."""

    def __init__(
        self, comm: Communicator, table: ParticleTable, options: MatchOptions, references: References, plan: Plan
    ) -> None:
        self._comm, self._table, self._options = comm, table, options
        self._references, self._plan = references, plan
        self._rotations = relion_matrices(table.angles_deg)
        assert table.box_px is not None
        self._box = table.box_px
        self._groups = int(table.optics_group.max(initial=0)) + 1

    def calibrated(self) -> Model:
        """Noise and amplitudes. Collective."""
        rows = sample_rows(self._table.optics_group)
        chunks, mine = self._mine(len(rows))
        own = [rows[slice(*chunks[number])] for number in mine]
        error: Exception | None = None
        data: list[BandData] = []
        try:
            with ImageReader(self._table) as reader:
                data = [self._load(part, reader) for part in own]
        except Exception as caught:
            error = caught
        raise_together(self._comm, error)
        sample = Sample(data, own, self._groups)
        with Progress("learning noise and amplitudes, step", 3, self._comm, self._options.quiet) as progress:
            return calibrate(
                self._comm, self._references, sample, self._box, self._plan, lambda note: progress.step(1, note)
            )

    def run(self, model: Model) -> MatchResult:
        """Search all particles. Collective."""
        chunks, mine = self._mine(len(self._table))
        found: list[Poses] = []
        scores: list[np.ndarray] = []
        error: Exception | None = None
        share = sum(stop - start for start, stop in (chunks[number] for number in mine))
        try:
            with (
                ImageReader(self._table) as reader,
                Progress("particle of the first rank", share, self._comm, self._options.quiet) as progress,
            ):
                for number in mine:
                    rows = np.arange(*chunks[number])
                    data = self._load(rows, reader).whitened(model.sigma)
                    modes = find_modes(model, data, self._plan)
                    found += [
                        _listed(poses, self._options)
                        for poses in pose_probabilities(model, data, modes, self._plan.finest, self._plan.limits)
                    ]
                    best = np.full(len(rows), -np.inf)
                    np.maximum.at(best, modes.owner, modes.scores)
                    scores.append(best)
                    progress.step(len(rows))
        except Exception as caught:
            error = caught
        raise_together(self._comm, error)
        return self._gathered(model, found, np.concatenate(scores) if scores else np.zeros(0))

    def _mine(self, count: int) -> tuple[list[tuple[int, int]], list[int]]:
        """Chunks of ``count`` particles, which do not depend on the number of ranks, and those of this rank."""
        chunks = cut_chunks(np.ones(count), _CHUNK)
        return chunks, deal_chunks([stop - start for start, stop in chunks], self._comm.size)[self._comm.rank]

    def _load(self, rows: np.ndarray, reader: ImageReader) -> BandData:
        def inspect(chosen: np.ndarray, images: np.ndarray) -> None:
            bad = judge_images(images, chosen, self._table)
            if bad:
                raise InputError(f"{bad[0].describe()}; mend it or take it out of {self._table.source}")

        data = load_band(
            self._table,
            rows,
            self._rotations[rows],
            self._references.grid.radius,
            reader.read,
            particle_radius_px=self._options.mask_radius_px(self._box),
            inspect=inspect,
        )
        return data if self._options.use_ctf else replace(data, ctfs=np.ones_like(data.ctfs))

    def _gathered(self, model: Model, found: list[Poses], scores: np.ndarray) -> MatchResult:
        """Join the results of all ranks on rank 0, in the order of the table."""
        rows = self._comm.gather_rows
        count = np.array([len(poses.probability) for poses in found], np.int64)
        rotations = [poses.rotations for poses in found]
        shifts = [poses.shifts for poses in found]
        probability = [poses.probability for poses in found]
        references = [poses.references[None] for poses in found]
        counts = rows(count)
        angles = rows(relion_angles(np.concatenate([np.zeros((0, 3, 3)), *rotations])))
        moves = rows(np.concatenate([np.zeros((0, 2)), *shifts]))
        weights = rows(np.concatenate([np.zeros(0), *probability]))
        reference = rows(np.array([poses.reference for poses in found], np.int64))
        shares = rows(np.concatenate([np.zeros((0, len(self._references))), *references]))
        best = rows(scores)
        if counts is None or angles is None or moves is None or weights is None or reference is None or shares is None:
            none = np.zeros(0)
            return MatchResult(None, none, none, none, model, self._plan)
        owner = np.repeat(np.arange(len(counts)), counts)
        origins = self._table.shifts_px[owner] + moves
        smears = Smears.of_lists(owner, angles, origins, weights)
        assert best is not None
        return MatchResult(smears, reference, shares, best, model, self._plan)


def _listed(poses: Poses, options: MatchOptions) -> Poses:
    """Only the poses that are to be listed; their probabilities are not renormalised."""
    before = np.cumsum(poses.probability) - poses.probability
    count = max(int(np.count_nonzero(before < options.cumulative)), 1)
    kept = slice(0, count if options.max_smears is None else min(count, options.max_smears))
    return replace(
        poses, rotations=poses.rotations[kept], shifts=poses.shifts[kept], probability=poses.probability[kept]
    )
