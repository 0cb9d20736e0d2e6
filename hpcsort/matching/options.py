"""Options of match, validated once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcsort.errors import OptionError, require
from hpcsort.geometry import point_group

__all__ = ["MatchOptions"]

_FINEST_ORDER = 6


@dataclass(frozen=True)
class MatchOptions:
    """What the user asks of match.

    Attributes
    ----------
    instack : particles, with poses for a local search.
    references : MRC maps; each particle gets the best one as its class.
    output : STAR file to write; the smear table lies beside it.
    local : search around the given poses only.
    healpix_order : of the first grid of directions (nside = 2^order).
    angular_step_deg : spacing of the first grid, instead of an order; in a local search of its first lattice.
    angle_range_deg : radius of the local search.
    shift_range_px : largest shift from the given origin; None is a tenth of the box, or 3 px in a local search.
    shift_step_px : spacing of the first grid of shifts; None follows the band.
    resolution_A : band limit; None is 0.7 Nyquist, at most 40 Fourier pixels.
    sym : point group of the references.
    cumulative : smears are listed until they hold this probability.
    max_smears : at most so many smears a particle.
    mask_px : radius of the particle in px; None is box // 2 - 2.
    use_ctf : whether images are modulated by the CTF.
    angpix, datadir : as in `read_particles`.
    overwrite : replace existing output.
    quiet : print nothing.
    """

    instack: Path
    references: tuple[Path, ...]
    output: Path
    local: bool = False
    healpix_order: int | None = None
    angular_step_deg: float | None = None
    angle_range_deg: float = 10.0
    shift_range_px: float | None = None
    shift_step_px: float | None = None
    resolution_A: float | None = None
    sym: str = "c1"
    cumulative: float = 0.999
    max_smears: int | None = None
    mask_px: float | None = None
    use_ctf: bool = True
    angpix: float | None = None
    datadir: Path | None = None
    overwrite: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        if not self.references:
            raise OptionError("no reference map is given; name one or several with --ref")
        if self.healpix_order is not None and self.angular_step_deg is not None:
            raise OptionError("--healpix-order and --angular-step both set the first grid; give one of them")
        if self.healpix_order is not None and self.local:
            raise OptionError("--healpix-order is for a global search; give --angular-step with --local")
        order = self.healpix_order
        require("--healpix-order", order, order is None or 0 <= order <= _FINEST_ORDER, f"0 to {_FINEST_ORDER}")
        step = self.angular_step_deg
        require("--angular-step", step, step is None or 0.5 <= step <= 60, "0.5 to 60 degrees")
        require("--angle-range", self.angle_range_deg, 0 <= self.angle_range_deg <= 60, "0 to 60 degrees")
        reach = self.shift_range_px
        require("--shift-range", reach, reach is None or (np.isfinite(reach) and reach >= 0), "0 px or more")
        require("--shift-step", self.shift_step_px, _positive(self.shift_step_px), "a positive number of px")
        require("--resolution", self.resolution_A, _positive(self.resolution_A), "a resolution in A")
        require("--mask", self.mask_px, _positive(self.mask_px), "a radius in px")
        require("--angpix", self.angpix, _positive(self.angpix), "a pixel size in A")
        require("--cumulative", self.cumulative, 0 < self.cumulative <= 1, "a probability above 0, at most 1")
        require("--max-smears", self.max_smears, self.max_smears is None or self.max_smears >= 1, "1 or more")
        point_group(self.sym)

    def check_box(self, box_px: int) -> None:
        """Check what depends on the box, once it is known."""
        if box_px < 8:
            raise OptionError(f"images of {box_px} px are too small to match; give particles of at least 8 px")
        if self.mask_px is not None and self.mask_px > box_px / 2:
            raise OptionError(f"--mask {self.mask_px:g} is more than half of the box of {box_px} px; give less")
        if self.shift_range_px is not None and self.shift_range_px > box_px / 2:
            raise OptionError(f"--shift-range {self.shift_range_px:g} is more than half of the box of {box_px} px")

    def mask_radius_px(self, box_px: int) -> float:
        """Radius of the particle in px of the full box."""
        return self.mask_px if self.mask_px is not None else float(max(box_px // 2 - 2, 2))


def _positive(value: float | None) -> bool:
    return value is None or (bool(np.isfinite(value)) and value > 0)
