"""2D images as data: normalised, band-limited, whitened; with one pose each or several."""

from hpcsort.images.band import BandData, half_plane, load_band
from hpcsort.images.noise import noise_spectrum
from hpcsort.images.seen import Seen
from hpcsort.images.smeared import Poses, SmearedData, joined_poses, pose_overlap

__all__ = [
    "BandData",
    "Poses",
    "Seen",
    "SmearedData",
    "half_plane",
    "joined_poses",
    "load_band",
    "noise_spectrum",
    "pose_overlap",
]
