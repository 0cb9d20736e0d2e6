"""Options of sort3d, validated once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcsort.errors import OptionError
from hpcsort.geometry import point_group

__all__ = ["SortOptions"]


@dataclass(frozen=True)
class SortOptions:
    """What the user asks of sort3d.

    Attributes
    ----------
    instack : particles with poses: STAR, .cs or EMAN2's HDF. This or ``refinement_dir``.
    refinement_dir : folder of a MERIDIEN refinement.
    niter_for_sorting : its iteration; None is the best.
    notapplybckgnoise : leave the refinement's noise spectra out of account.
    output_dir : folder of the results.
    radius : particle radius in px of the full box; None is box // 2 - 2.
    sym : point group of the maps.
    img_per_grp : asked-for size of a group: at most N / img_per_grp groups are made, and equal ones are merged as
        held-out likelihood says. None tries up to ``max_groups``.
    nxinit : window size of the sort in px (its band is nxinit / 2 - 1); None follows the FSC.
    mask3D : mask of the particle; None is a soft sphere of ``radius``.
    focus : mask, binary or soft, in which particles are compared; the rest is that of the consensus.
    auto_focus : find the focus: balls all over the particle, judged by particles that they have not learned from.
    expand : sort each particle once for each symmetry mate, without symmetry.
    orientation_groups : number of view directions in which the minimum group size is held.
    nstep : steps in which the minimum group size is lowered.
    depth_order : layer 0 of a generation has 2^depth_order boxes, each a pair of independent chains.
    engine : "subspace", or "maps" for K-means in map space from random starts.
    independence : "halves": the chains of a box learn from disjoint halves of the particles; "starts": from all
        particles and different starts.
    use_umat : with the engine "maps": fuzzy membership weights the particles in the maps while classes settle.
    null : number of sets of one state that are simulated and sorted for p-values; 0 for none.
    num_core_set : smallest core set that gets a map; None is the larger of 100 and the minimum group size.
    freeze_groups : with ``img_per_grp``: the minimum group size is one number and not lowered in ``nstep`` steps.
    include_unaccounted : write the unaccounted particles as the last cluster of a generation too.
    components : number J of maps of the subspace; None follows held-out likelihood.
    max_groups : largest number of groups tried when held-out likelihood chooses.
    scores : "marginal": a particle with several poses is scored by their mean likelihood; "best": by the likeliest.
    nsmear : most poses of a particle that are used; None uses all.
    memory_per_node : memory in GB that a node may use; None is what it has.
    overhead : memory in GB a node that is left to others.
    compute_on_the_fly : make the images of a particle's poses each time they are needed, which saves memory.
    seed : of all random numbers.
    map_format : "mrc" or "hdf" (EMAN2's).
    angpix : pixel size in A where the STAR file lacks it.
    datadir : folder in which image stacks are looked up as well.
    skip_bad : go on without images that are NaN, infinite or constant.
    checkpoint_minutes : time between two checkpoints; 0 writes one after every step.
    watchdog_minutes : a rank that does not answer for so long ends the run; 0 waits for ever.
    resume : go on with this very sort where ``output_dir`` holds one.
    overwrite : replace the results of an earlier sort in ``output_dir``.
    quiet : write the story to log.txt only.
    """

    output_dir: Path
    instack: Path | None = None
    refinement_dir: Path | None = None
    niter_for_sorting: int | None = None
    notapplybckgnoise: bool = False
    radius: int | None = None
    sym: str = "c1"
    img_per_grp: int | None = None
    nxinit: int | None = None
    mask3D: Path | None = None
    focus: Path | None = None
    auto_focus: bool = False
    expand: bool = False
    orientation_groups: int = 20
    nstep: int = 5
    depth_order: int = 2
    num_core_set: int | None = None
    freeze_groups: bool = True
    include_unaccounted: bool = True
    engine: str = "subspace"
    independence: str = "halves"
    use_umat: bool = False
    null: int = 0
    components: int | None = None
    max_groups: int = 24
    scores: str = "marginal"
    nsmear: int | None = None
    memory_per_node: float | None = None
    overhead: float = 1.0
    compute_on_the_fly: bool = False
    seed: int = 0
    map_format: str = "mrc"
    angpix: float | None = None
    datadir: Path | None = None
    skip_bad: bool = False
    checkpoint_minutes: float = 10.0
    watchdog_minutes: float = 60.0
    resume: bool = False
    overwrite: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        if (self.instack is None) == (self.refinement_dir is None):
            raise OptionError("particles come from one place: give --instack or --refinement-dir.")
        if self.refinement_dir is None and (self.niter_for_sorting is not None or self.notapplybckgnoise):
            raise OptionError("--niter-for-sorting and --notapplybckgnoise belong to --refinement-dir; leave them out.")
        if self.focus is not None and self.auto_focus:
            raise OptionError("--focus names the mask that --auto-focus would look for; give one of them.")
        if self.expand and len(point_group(self.sym)) == 1 and self.refinement_dir is None:
            raise OptionError(f"--expand repeats particles by their symmetry, and {self.sym} has none; give --sym.")
        _at_least("--niter-for-sorting", self.niter_for_sorting, 1)
        _at_least("--radius", self.radius, 2)
        _at_least("--img-per-grp", self.img_per_grp, 2)
        _at_least("--nxinit", self.nxinit, 12)
        _at_least("--orientation-groups", self.orientation_groups, 1)
        _at_least("--nstep", self.nstep, 1)
        _at_least("--depth-order", self.depth_order, 1)
        _at_least("--num-core-set", self.num_core_set, 1)
        _one_of("--engine", self.engine, ("subspace", "maps"))
        _one_of("--independence", self.independence, ("halves", "starts"))
        _one_of("--scores", self.scores, ("marginal", "best"))
        _at_least("--nsmear", self.nsmear, 1)
        _at_least("--overhead", self.overhead, 0)
        if self.memory_per_node is not None and not self.memory_per_node > 0:
            raise OptionError(f"--memory-per-node {self.memory_per_node} is no memory in GB; give a positive number.")
        _one_of("--map-format", self.map_format, ("mrc", "hdf"))
        _at_least("--null", self.null, 0)
        _at_least("--components", self.components, 1)
        _at_least("--max-groups", self.max_groups, 1)
        _at_least("--seed", self.seed, 0)
        _at_least("--checkpoint-minutes", self.checkpoint_minutes, 0)
        _at_least("--watchdog-minutes", self.watchdog_minutes, 0)
        if self.resume and self.overwrite:
            raise OptionError("--resume goes on with the sort that --overwrite would replace; give one of them.")
        if self.depth_order > 6:
            raise OptionError(
                f"--depth-order {self.depth_order} would run {2**self.depth_order} boxes at once; give 1 to 6."
            )
        if self.use_umat and self.engine != "maps":
            raise OptionError(
                "--use-umat belongs to the classical loop; add --engine maps (the default engine's memberships are "
                "probabilities anyway)."
            )
        if self.components is not None and self.components > 40:
            raise OptionError(
                f"--components {self.components} is above 40, the most the subspace can hold; give 1 to 40."
            )
        if self.angpix is not None and not self.angpix > 0:
            raise OptionError(f"--angpix {self.angpix} is not a pixel size in A; give a positive number.")
        point_group(self.sym)

    @property
    def source(self) -> Path:
        """Where the particles come from."""
        place = self.refinement_dir if self.instack is None else self.instack
        assert place is not None
        return place

    def masks(self) -> list[Path]:
        """Files of masks that are read."""
        return [path for path in (self.mask3D, self.focus) if path is not None]

    def operators(self) -> np.ndarray:
        """Operators (g, 3, 3) of the symmetry that the sorted maps have."""
        return point_group("c1" if self.expand else self.sym)

    def check_box(self, box_px: int) -> None:
        """Check what depends on the box, once it is known."""
        if self.radius is not None and 2 * self.radius + 2 > box_px:
            raise OptionError(
                f"--radius {self.radius} does not fit the box of {box_px} px (2 * radius + 2 <= box); "
                f"give at most {(box_px - 2) // 2}."
            )
        if self.nxinit is not None and self.nxinit > box_px:
            raise OptionError(f"--nxinit {self.nxinit} is larger than the box of {box_px} px; give at most {box_px}.")

    def radius_px(self, box_px: int) -> int:
        """Particle radius in px of the full box."""
        return self.radius if self.radius is not None else max(box_px // 2 - 2, 1)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise OptionError(f"{name} {value} is unknown; give {' or '.join(known)}.")


def _at_least(name: str, value: float | None, smallest: int) -> None:
    if value is not None and value < smallest:
        raise OptionError(f"{name} {value} is too small; give at least {smallest}.")
