"""2D images as data: normalised, band-limited, whitened."""

from hpcsort.images.band import BandData, half_plane, load_band
from hpcsort.images.noise import noise_spectrum

__all__ = ["BandData", "half_plane", "load_band", "noise_spectrum"]
