"""What to simulate: one frozen record, checked once when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from hpcsort.errors import OptionError, require

_NOISES = ("white", "coloured", "none")
_DTYPES = ("float32", "float16")
_DEFAULT_STATES = 3


@dataclass(frozen=True)
class SimulationOptions:
    """Options of `simulate`.

    Attributes
    ----------
    out : Path
        Folder of the results; made if it does not exist.
    map_path : Path or None
        Map [z, y, x] from which the states are made; the built-in phantom if None.
    states : int
        Number of states; 0 means as many as `sizes` names, or 3.
    particles : int
        Number of images, junk included.
    box_px : int
        Edge of images and maps; 0 means the map's edge, or 64 for the phantom.
    pixel_size_A : float
        Pixel size in Angstrom; 0 means the map's header, or 5 for the phantom.
    snr : float
        Variance of the CTF-modulated projections over the whole box (mean over particles) by the variance of noise.
    noise : str
        "white", "coloured" (power falls with frequency) or "none".
    domain_radius_px : float
        Radius of the sphere that a state loses when the states are made from a map.
    rotate_deg : float
        If not 0, the sphere is turned by this angle about the centre of the particle instead of lost.
    nested : bool
        Each state lacks what the one before it lacks and one spherical domain more: an assembly pathway.
    domain_share : float
        Mass of each of these domains by the mass of the particle.
    sizes : tuple of float
        Relative sizes of the states; empty for even sizes.
    junk : float
        Fraction of images that are noise or of a wrong density; their state is -1.
    preferred : float
        Fraction of particles that look along one cone of 20 degrees.
    angle_error_deg : float
        Standard deviation of the error of the written orientation about each of the three axes.
    shift_error_px : float
        Standard deviation of the error of the written origin along x and y.
    shift_sigma_px : float
        Standard deviation of the true origins along x and y.
    micrographs : int
        Number of micrographs; 0 means one for 80 particles.
    defocus_range_A : tuple of two float
        Smallest and largest mean defocus of a micrograph, underfocus positive.
    voltage_kV, cs_mm, amplitude_contrast : float
        Microscope.
    seed : int
        Key of all random numbers, 0 to 2^64 - 1.
    dtype : str
        "float32" or "float16", the numbers in the image stack.
    overwrite : bool
        Replace the files in a folder that is not empty.
    chunk : int
        Images made at a time; does not change the result.

    Raises
    ------
    OptionError
        If a value is outside its range.
    """

    out: Path
    map_path: Path | None = None
    states: int = 0
    particles: int = 4000
    box_px: int = 0
    pixel_size_A: float = 0.0
    snr: float = 0.1
    noise: str = "white"
    domain_radius_px: float = 12.0
    rotate_deg: float = 0.0
    nested: bool = False
    domain_share: float = 0.03
    sizes: tuple[float, ...] = ()
    junk: float = 0.0
    preferred: float = 0.0
    angle_error_deg: float = 0.0
    shift_error_px: float = 0.0
    shift_sigma_px: float = 2.0
    micrographs: int = 0
    defocus_range_A: tuple[float, float] = (8000.0, 25000.0)
    voltage_kV: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.1
    seed: int = 0
    dtype: str = "float32"
    overwrite: bool = False
    chunk: int = 256

    def __post_init__(self) -> None:
        require("--states", self.states, self.states >= 0, "1 or more")
        require("--particles", self.particles, self.particles >= 1, "1 or more")
        require("--box", self.box_px, self.box_px == 0 or self.box_px >= 7, "at least 7 pixels")
        require("--angpix", self.pixel_size_A, _at_least(self.pixel_size_A, 0), "a positive number of Angstrom")
        require("--snr", self.snr, _above(self.snr, 0), "a positive number, or --noise none for none")
        require("--noise", self.noise, self.noise in _NOISES, "one of " + ", ".join(_NOISES))
        require(
            "--domain-radius", self.domain_radius_px, _above(self.domain_radius_px, 0), "a number of pixels above 0"
        )
        require("--rotate", self.rotate_deg, -180 <= self.rotate_deg <= 180, "from -180 to 180 degrees")
        require("--domain-share", self.domain_share, 0 < self.domain_share < 1, "a fraction from 0 to 1")
        require("--sizes", self.sizes, all(_above(size, 0) for size in self.sizes), "positive numbers")
        require("--junk", self.junk, 0 <= self.junk < 1, "a fraction from 0 to less than 1")
        require("--preferred", self.preferred, 0 <= self.preferred <= 1, "a fraction from 0 to 1")
        require("--angle-error", self.angle_error_deg, _at_least(self.angle_error_deg, 0), "0 degrees or more")
        require("--shift-error", self.shift_error_px, _at_least(self.shift_error_px, 0), "0 pixels or more")
        require("--shift-sigma", self.shift_sigma_px, _at_least(self.shift_sigma_px, 0), "0 pixels or more")
        require("--micrographs", self.micrographs, self.micrographs >= 0, "1 or more")
        low, high = self.defocus_range_A
        require("--defocus-range", f"{low:g},{high:g} A", -1e6 < low <= high < 1e6, "two numbers, the smaller first")
        require("--voltage", self.voltage_kV, _above(self.voltage_kV, 0), "a positive number of kV")
        require("--cs", self.cs_mm, _at_least(self.cs_mm, 0), "0 mm or more")
        contrast = self.amplitude_contrast
        require("--amplitude-contrast", contrast, 0 <= contrast <= 1, "a fraction from 0 to 1")
        require("--seed", self.seed, 0 <= self.seed < 2**64, "an integer from 0 to 2^64 - 1")
        require("--dtype", self.dtype, self.dtype in _DTYPES, "float32 or float16")
        require("chunk", self.chunk, self.chunk >= 1, "1 or more")
        if self.nested and self.rotate_deg:
            raise OptionError(f"--nested removes domains but --rotate {self.rotate_deg:g} turns them; give one of them")
        named = len(self.sizes)
        if named and self.states not in (0, named):
            raise OptionError(f"--sizes names {named} states but --states is {self.states}; give only one of them")

    @property
    def state_count(self) -> int:
        """Number of states."""
        return self.states or len(self.sizes) or _DEFAULT_STATES

    @property
    def micrograph_count(self) -> int:
        """Number of micrographs."""
        return self.micrographs or math.ceil(self.particles / 80)


def _above(value: float, limit: float) -> bool:
    return math.isfinite(value) and value > limit


def _at_least(value: float, limit: float) -> bool:
    return math.isfinite(value) and value >= limit
