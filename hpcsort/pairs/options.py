"""Options of extract-pairs, validated once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcsort.errors import OptionError, require

__all__ = ["PairOptions"]

_NORMALIZE = ("none", "old", "new", "ramp")
_BORDERS = ("skip", "fill")
_DEFOCUS = ("mean", "gradient")
_SIGNS = ("auto", "+", "-")


@dataclass(frozen=True)
class PairOptions:
    """What the user asks of extract-pairs.

    Attributes
    ----------
    output : folder of the results.
    box_px : edge of the windows, in pixels after downsampling; odd and even alike.
    invert : whether the contrast is inverted; the user must choose.
    pairs : STAR, .xmd or CSV table of micrograph pairs; or
    untilted, tilted : folders, or paths in which * stands for the name of the pair.
    coordinates : one folder or table for both sides, or one for each; none: beside the micrographs.
    ctf_untilted, ctf_tilted : tables of CTF by micrograph.
    downsample : factor of at least 1 by which micrographs are shrunk.
    borders : "skip" leaves particles out whose window is partly outside, "fill" repeats the nearest pixel.
    dust, dust_sigma : whether pixels further than so many standard deviations from the mean are replaced.
    phase_flip : whether phases are flipped on the sides that have a CTF.
    normalize : "none", "old", "new" or "ramp".
    background_radius_px : background lies at this radius and beyond; 0 or less is box // 2.
    tilted_defocus : "mean" of the micrograph, or the "gradient" along its tilt.
    tilt_sign : of the gradient: "+" if underfocus grows to the positive side of the axis; "auto" from the images.
    subpixel : whether windows are shifted by the rest of the coordinate that rounding left.
    compat : order of steps and inversion as in the original program.
    angpix : pixel size of the micrographs in A; None is that of their headers.
    picked_angpix : pixel size of the micrographs on which was picked; None: on these.
    flip_y : whether coordinates count rows from the last one.
    ignore_in_names : regular expression taken out of names before they are compared.
    voltage_kV, cs_mm, amplitude_contrast : microscope, where the CTF tables do not tell.
    datadir : folder in which micrographs are looked up as well.
    report : whether the page with pictures is written.
    workers : micrograph pairs that a rank works on at a time.
    watchdog_minutes : a rank that does not answer for so long ends the run; 0 waits for ever.
    resume : go on with this very run where ``output`` holds one.
    overwrite : replace existing output.
    quiet : print nothing.

    Raises
    ------
    OptionError
        If a value is outside its range or options contradict each other.
    """

    output: Path
    box_px: int
    invert: bool | None = None
    pairs: Path | None = None
    untilted: str | None = None
    tilted: str | None = None
    coordinates: tuple[Path, ...] = ()
    ctf_untilted: Path | None = None
    ctf_tilted: Path | None = None
    downsample: float = 1.0
    borders: str = "skip"
    dust: bool = True
    dust_sigma: float = 3.5
    phase_flip: bool = False
    normalize: str = "ramp"
    background_radius_px: int = -1
    tilted_defocus: str = "mean"
    tilt_sign: str = "auto"
    subpixel: bool = False
    compat: bool = False
    angpix: float | None = None
    picked_angpix: float | None = None
    flip_y: bool = False
    ignore_in_names: str | None = None
    voltage_kV: float | None = None
    cs_mm: float | None = None
    amplitude_contrast: float | None = None
    datadir: Path | None = None
    report: bool = True
    workers: int = 1
    watchdog_minutes: float = 60.0
    resume: bool = False
    overwrite: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        self._check_inputs()
        self._check_images()
        require("--angpix", self.angpix, _positive(self.angpix), "a pixel size in A")
        require("--picked-angpix", self.picked_angpix, _positive(self.picked_angpix), "a pixel size in A")
        require("--voltage", self.voltage_kV, _positive(self.voltage_kV), "a positive number of kV")
        require("--cs", self.cs_mm, self.cs_mm is None or 0 <= self.cs_mm < np.inf, "0 mm or more")
        contrast = self.amplitude_contrast
        require("--amplitude-contrast", contrast, contrast is None or 0 <= contrast <= 1, "a fraction from 0 to 1")
        require("--workers", self.workers, self.workers >= 1, "1 or more")
        minutes = self.watchdog_minutes
        require("--watchdog-minutes", minutes, 0 <= minutes < np.inf, "0 minutes or more")
        if self.resume and self.overwrite:
            raise OptionError("--resume goes on with the run that --overwrite would replace; give one of them")

    @property
    def radius_px(self) -> int:
        """Radius at which the background begins, in pixels of the window."""
        return self.background_radius_px if self.background_radius_px > 0 else self.box_px // 2

    def _check_inputs(self) -> None:
        if (self.pairs is None) == (self.untilted is None and self.tilted is None):
            raise OptionError("give either --pairs or --untilted with --tilted, not both and not neither")
        if (self.untilted is None) != (self.tilted is None):
            lacking = "--untilted" if self.untilted is None else "--tilted"
            raise OptionError(f"{lacking} is missing; micrographs come in pairs, so give both sides")
        require("--coordinates", len(self.coordinates), len(self.coordinates) <= 2, "it once, or once for each side")
        if self.output.is_file():
            raise OptionError(f"--output {self.output} is a file; give the name of a folder")
        try:
            re.compile(self.ignore_in_names or "")
        except re.error as error:
            raise OptionError(
                f"--ignore-in-names {self.ignore_in_names!r} is no regular expression ({error}); correct it"
            ) from error

    def _check_images(self) -> None:
        require("--box", self.box_px, self.box_px >= 2, "2 px or more, in pixels after downsampling")
        factor = self.downsample
        require("--downsample", factor, np.isfinite(factor) and factor >= 1, "a factor of 1 or more")
        require("--borders", self.borders, self.borders in _BORDERS, " or ".join(_BORDERS))
        require("--dust-sigma", self.dust_sigma, _positive(self.dust_sigma), "a positive number")
        require("--normalize", self.normalize, self.normalize in _NORMALIZE, "one of " + ", ".join(_NORMALIZE))
        radius = self.background_radius_px
        require("--background-radius", radius, radius <= self.box_px // 2, f"at most box // 2 = {self.box_px // 2}")
        require("--tilted-defocus", self.tilted_defocus, self.tilted_defocus in _DEFOCUS, " or ".join(_DEFOCUS))
        require("--tilt-sign", self.tilt_sign, self.tilt_sign in _SIGNS, "auto, + or -")
        if self.invert is None:
            raise OptionError(
                "neither --invert nor --no-invert is given; invert micrographs in which particles are dark, as they are"
                " in ice"
            )
        if self.phase_flip and self.ctf_untilted is None and self.ctf_tilted is None:
            raise OptionError("--phase-flip needs a CTF of at least one side; give --ctf-untilted or --ctf-tilted")
        if self.tilted_defocus == "gradient" and self.ctf_tilted is None:
            raise OptionError("--tilted-defocus gradient needs the CTF of the tilted side; give --ctf-tilted")


def _positive(value: float | None) -> bool:
    return value is None or (bool(np.isfinite(value)) and value > 0)
