"""Pixels of simulated particles: sections of the states, CTF, shift, noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import scipy.fft

from hpcsort.optics import ctf
from hpcsort.parallel import stream
from hpcsort.simulation.options import SimulationOptions
from hpcsort.simulation.particles import JUNK, SimulatedParticles
from hpcsort.simulation.phantom import blob_map
from hpcsort.simulation.sections import SectionMaker, half_plane, image_from_half_plane

Image = npt.NDArray[np.float32]

_SAMPLE = 512
_BLOBS = 40


class ParticleImages:
    """Images of simulated particles, one at a time or in a stream.

    Parameters
    ----------
    options : SimulationOptions
        The run.
    particles : SimulatedParticles
        Its particles.
    maps : sequence of ndarray, shape (box, box, box)
        Densities [z, y, x] of the states.
    pixel_size_A : float
        Pixel size.

    Attributes
    ----------
    scale : float
        Factor by which densities are multiplied so that noise of variance 1 gives the ratio asked for.
    """

    def __init__(
        self,
        options: SimulationOptions,
        particles: SimulatedParticles,
        maps: Sequence[npt.NDArray[np.float32]],
        pixel_size_A: float,
    ) -> None:
        self._options = options
        self._particles = particles
        self._pixel_A = pixel_size_A
        self._box = maps[0].shape[0]
        self._px, self._py = half_plane(self._box)
        self._makers = [SectionMaker(volume) for volume in maps]
        if particles.wrong_density.any():
            self._makers.append(SectionMaker(_wrong_density(maps[0], options.seed)))
        self._noise_amplitude = _coloured_amplitude(self._box) if options.noise == "coloured" else None
        self.scale = 1.0 if options.noise == "none" else self._scale_for(options.snr)

    def stream(self) -> Iterator[Image]:
        """Yield the image (box, box) [y, x], float32, of every particle in order."""
        count = self._options.particles
        for start in range(0, count, self._options.chunk):
            rows = np.arange(start, min(start + self._options.chunk, count))
            transfer = self._ctf(rows)
            for row, values in zip(rows.tolist(), transfer, strict=True):
                yield self.signal(row, values) * np.float32(self.scale) + self._noise(row)

    def signal(self, row: int, transfer: npt.NDArray[np.float32] | None = None) -> Image:
        """Return one image without noise, before scaling.

        Parameters
        ----------
        row : int
            Particle.
        transfer : ndarray, shape (P,), optional
            Its CTF at the pixels of `half_plane`.

        Returns
        -------
        ndarray, shape (box, box), float32
            Projection [y, x], CTF applied and shifted; zero for junk that is noise.
        """
        state = int(self._particles.state[row])
        if state == JUNK and not self._particles.wrong_density[row]:
            return np.zeros((self._box, self._box), np.float32)
        if transfer is None:
            transfer = self._ctf(np.array([row]))[0]
        ox, oy = self._particles.origins_px[row]
        # the origin is what has to be added to centre the content, so the content lies at minus the origin
        shift = np.exp(2j * np.pi / self._box * (self._px * ox + self._py * oy))
        # junk takes the last maker, which is the wrong density
        section = self._makers[state].section(self._particles.matrices[row], self._px, self._py)
        return image_from_half_plane(section * transfer * shift, self._px, self._py, self._box)

    def _ctf(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        p, o = self._particles, self._options
        return ctf(
            self._px,
            self._py,
            self._box,
            self._pixel_A,
            p.defocus_u_A[rows],
            p.defocus_v_A[rows],
            p.defocus_angle_deg[rows],
            o.voltage_kV,
            o.cs_mm,
            o.amplitude_contrast,
        )

    def _scale_for(self, snr: float) -> float:
        good = np.flatnonzero(self._particles.state != JUNK)
        chosen = good[np.unique(np.linspace(0, len(good) - 1, _SAMPLE).round().astype(np.int64))]
        power = np.mean([self.signal(row).astype(np.float64).var() for row in chosen.tolist()])
        return float(np.sqrt(snr / power))

    def _noise(self, row: int) -> Image:
        if self._options.noise == "none":
            return np.zeros((self._box, self._box), np.float32)
        rng = stream(self._options.seed, "noise", row)
        white = rng.standard_normal((self._box, self._box), dtype=np.float32)
        if self._noise_amplitude is None:
            return white
        spectrum = scipy.fft.rfft2(white) * self._noise_amplitude
        return np.asarray(scipy.fft.irfft2(spectrum, s=white.shape), np.float32)


def _coloured_amplitude(box_px: int) -> npt.NDArray[np.float32]:
    """Root of a power spectrum that falls to a seventh from the origin to the edge and has mean 1 over the box."""
    fx, fy = scipy.fft.fftfreq(box_px), scipy.fft.fftfreq(box_px)
    relative = np.minimum(np.hypot(fy[:, None], fx) / 0.5, 1.0)
    power = 0.3 + 2.0 * np.exp(-4.0 * relative)
    return np.sqrt(power / power.mean())[:, : box_px // 2 + 1].astype(np.float32)


def _wrong_density(volume: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.float32]:
    """Clump of random blobs with the variance of the particle, such as a contaminant has."""
    box = volume.shape[0]
    rng = stream(seed, "wrong density")
    places = np.clip(rng.normal(0, 0.13 * box, (_BLOBS, 3)), -0.35 * box, 0.35 * box)
    clump = blob_map(places, rng.uniform(0.02, 0.05, _BLOBS) * box + 0.5, np.ones(_BLOBS), box)
    return np.asarray(clump * (volume.std() / clump.std()), np.float32)
