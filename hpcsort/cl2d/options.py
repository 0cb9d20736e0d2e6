"""Options of cl2d, validated once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcsort.errors import OptionError, require

__all__ = ["Cl2dOptions"]

_SHARE, _MOST = 0.45, 24.0
"""Band limit where none is asked for: share of Nyquist, and Fourier pixels at most."""
_LEAST_BOX = 8


@dataclass(frozen=True)
class Cl2dOptions:
    """What the user asks of cl2d.

    Attributes
    ----------
    instack : particles (STAR, .cs, HDF) or a bare stack of images.
    output_dir : folder to make.
    classes : number of classes in the last level.
    initial_classes : number of classes in the first level.
    references : stack of initial class averages; their number takes the place of `initial_classes`.
    iterations : at most so many in each level.
    comparison : correlation, or correntropy, by which the best of the correlation are ranked again.
    clustering : classical (the largest score) or robust (a score large by what is usual for the class).
    core : whether cores are found.
    junk_zscore, pca_zscore : limits of the two tests a core particle passes.
    pca_components : of the class that the second test looks at.
    stable_core : whether particles that stay together over the levels are found.
    tolerance : levels in which a stable particle may be apart from its class.
    analyze_rejected : classify what is in no core by itself.
    max_shift : largest shift as a share of the box.
    mask_radius_px : radius of the particle in px; None is half the box.
    resolution_A : band limit; None is 0.45 Nyquist, at most 24 Fourier pixels.
    ctf : none, flip or wiener.
    mirror, align : whether images may be mirrored, and turned, shifted and mirrored at all.
    min_size_percent : a class below this share of the mean size is dissolved, and the largest split instead.
    mirrored_stack : write a stack in which the mirrored particles are mirrored back, with a STAR file.
    seed : of all random numbers.
    angpix, datadir : as in `read_particles`.
    checkpoint_minutes, watchdog_minutes, resume : as of sort3d.
    overwrite : replace existing output.
    quiet : print nothing.
    """

    instack: Path
    output_dir: Path
    classes: int = 64
    initial_classes: int = 4
    references: Path | None = None
    iterations: int = 10
    comparison: str = "correlation"
    clustering: str = "classical"
    core: bool = True
    junk_zscore: float = 3.0
    pca_zscore: float = 3.0
    pca_components: int = 2
    stable_core: bool = True
    tolerance: int = 1
    analyze_rejected: bool = False
    max_shift: float = 0.1
    mask_radius_px: float | None = None
    resolution_A: float | None = None
    ctf: str = "none"
    mirror: bool = True
    align: bool = True
    min_size_percent: float = 20.0
    mirrored_stack: bool = False
    seed: int = 0
    angpix: float | None = None
    datadir: Path | None = None
    checkpoint_minutes: float = 10.0
    watchdog_minutes: float = 60.0
    resume: bool = False
    overwrite: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        require("--classes", self.classes, self.classes >= 1, "1 or more")
        require("--initial-classes", self.initial_classes, self.initial_classes >= 1, "1 or more")
        if self.references is None and self.initial_classes > self.classes:
            raise OptionError(
                f"--initial-classes {self.initial_classes} is more than --classes {self.classes}; give fewer"
            )
        require("--iterations", self.iterations, self.iterations >= 1, "1 or more")
        known = ("correlation", "correntropy")
        require("--comparison", self.comparison, self.comparison in known, " or ".join(known))
        known = ("classical", "robust")
        require("--clustering", self.clustering, self.clustering in known, " or ".join(known))
        require("--ctf", self.ctf, self.ctf in ("none", "flip", "wiener"), "none, flip or wiener")
        require("--junk-zscore", self.junk_zscore, self.junk_zscore > 0, "a positive number")
        require("--pca-zscore", self.pca_zscore, self.pca_zscore > 0, "a positive number")
        require("--pca-components", self.pca_components, 1 <= self.pca_components <= 20, "1 to 20")
        require("--tolerance", self.tolerance, self.tolerance >= 0, "0 or more levels")
        require("--max-shift", self.max_shift, 0 <= self.max_shift <= 0.5, "a share of the box, 0 to 0.5")
        require("--mask-radius", self.mask_radius_px, _positive(self.mask_radius_px), "a radius in px")
        require("--resolution", self.resolution_A, _positive(self.resolution_A), "a resolution in A")
        require("--min-size", self.min_size_percent, 0 <= self.min_size_percent <= 100, "0 to 100 percent")
        require("--angpix", self.angpix, _positive(self.angpix), "a pixel size in A")
        require("--checkpoint-minutes", self.checkpoint_minutes, self.checkpoint_minutes >= 0, "0 or more")
        require("--watchdog-minutes", self.watchdog_minutes, self.watchdog_minutes >= 0, "0 or more")
        if self.resume and self.overwrite:
            raise OptionError("--resume goes on with the run that --overwrite would replace; give one of them")
        if self.analyze_rejected and not self.core:
            raise OptionError("--analyze-rejected needs cores to tell what is rejected; leave out --no-core")
        if not self.align and self.mirrored_stack:
            raise OptionError("--mirrored-stack needs mirrored particles, which --no-align does not look for")

    def check_particles(self, count: int, box_px: int) -> None:
        """Check what depends on the particles, once they are known."""
        if count < self.classes:
            raise OptionError(
                f"--classes {self.classes} is more than the {count} particles of {self.instack}; give fewer classes"
            )
        if box_px < _LEAST_BOX:
            raise OptionError(f"images of {box_px} px are too small; give particles of at least {_LEAST_BOX} px")
        if self.mask_radius_px is not None and not 3 <= self.mask_radius_px <= box_px / 2:
            raise OptionError(
                f"--mask-radius {self.mask_radius_px:g} does not fit a box of {box_px} px; give 3 to {box_px / 2:g} px"
            )

    def mask_radius(self, box_px: int) -> float:
        """Radius of the particle in px."""
        return self.mask_radius_px if self.mask_radius_px is not None else box_px / 2

    def band_px(self, box_px: int, pixel_A: float) -> float:
        """Band limit in Fourier pixels.

        Raises
        ------
        OptionError
            If the resolution asked for is beyond what the images hold.
        """
        most = (box_px - 1) // 2
        if self.resolution_A is None:
            return float(np.clip(round(_SHARE * box_px / 2), 2, min(_MOST, most)))
        band = box_px * pixel_A / self.resolution_A
        if not 2 <= band <= most:
            raise OptionError(
                f"--resolution {self.resolution_A:g} does not fit images of {box_px} px of {pixel_A:g} A; give "
                f"{box_px * pixel_A / most:.3g} to {box_px * pixel_A / 2:.3g} A"
            )
        return float(band)


def _positive(value: float | None) -> bool:
    return value is None or (bool(np.isfinite(value)) and value > 0)
