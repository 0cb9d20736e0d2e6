"""What micrograph pairs to simulate: one frozen record, checked once when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from hpcsort.errors import require
from hpcsort.simulation.options import SimulationOptions

__all__ = ["TiltPairOptions"]


@dataclass(frozen=True)
class TiltPairOptions:
    """Options of `simulate_tilt_pairs`.

    Attributes
    ----------
    out : folder of the results; made if it does not exist.
    pairs : number of micrograph pairs.
    per_micrograph : particles in each, if they find room.
    size_px : edge of the square micrographs.
    tilt_deg : angle between the two views.
    axis_deg : direction of the tilt axis in the untilted micrograph, from x towards y.
    turn_deg : by which the tilted micrograph is turned in its plane.
    shift_px : by which it is shifted along x and y.
    ice_A : thickness of the layer in which particles lie; height moves them in the tilted view.
    views : number of orientations up to rotation in the plane; 0 for all orientations.
    map_path, states, box_px, pixel_size_A : particle, as in `SimulationOptions`.
    snr : variance of a projection through the CTF, in its box, by the variance of noise, which is 1; 0 means no noise.
    ice_noise : standard deviation of noise that passes the CTF, as that of ice does: its rings show the defocus.
    dust : patches of dust in each micrograph, a third of them single hot pixels.
    carbon : whether the edge of a carbon film runs through a corner of every third pair.
    defocus_range_A, voltage_kV, cs_mm, amplitude_contrast, phase_shift_deg : optics.
    seed : key of all random numbers.
    overwrite : replace the files in a folder that is not empty.

    Raises
    ------
    OptionError
        If a value is outside its range.
    """

    out: Path
    pairs: int = 3
    per_micrograph: int = 30
    size_px: int = 512
    tilt_deg: float = 50.0
    axis_deg: float = 85.0
    turn_deg: float = 3.0
    shift_px: tuple[float, float] = (6.0, -4.0)
    ice_A: float = 0.0
    views: int = 0
    map_path: Path | None = None
    states: int = 1
    box_px: int = 0
    pixel_size_A: float = 0.0
    snr: float = 0.5
    ice_noise: float = 1.0
    dust: int = 12
    carbon: bool = True
    defocus_range_A: tuple[float, float] = (10000.0, 20000.0)
    voltage_kV: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.1
    phase_shift_deg: float = 0.0
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        require("--tilt-pairs", self.pairs, self.pairs >= 1, "1 or more")
        require("--per-micrograph", self.per_micrograph, self.per_micrograph >= 1, "1 or more")
        require("--micrograph-size", self.size_px, 32 <= self.size_px <= 32768, "32 to 32768 pixels")
        require("--tilt", self.tilt_deg, 0 <= abs(self.tilt_deg) <= 75, "-75 to 75 degrees")
        require("--tilt-axis", self.axis_deg, math.isfinite(self.axis_deg), "an angle in degrees")
        require("--ice", self.ice_A, 0 <= self.ice_A < math.inf, "0 A or more")
        require("--ice-noise", self.ice_noise, 0 <= self.ice_noise < math.inf, "0 or more")
        require("--views", self.views, self.views >= 0, "0 or more")
        require("--snr", self.snr, 0 <= self.snr < math.inf, "0 for no noise, or more")
        # the particle's own options are checked where they belong
        _ = self.particle

    @property
    def particle(self) -> SimulationOptions:
        """What the particles are."""
        return SimulationOptions(
            out=self.out, map_path=self.map_path, states=self.states, box_px=self.box_px,
            pixel_size_A=self.pixel_size_A, defocus_range_A=self.defocus_range_A, voltage_kV=self.voltage_kV,
            cs_mm=self.cs_mm, amplitude_contrast=self.amplitude_contrast, seed=self.seed,
        )  # fmt: skip
