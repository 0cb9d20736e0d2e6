"""Contrast transfer function."""

from hpcsort.optics.ctf import ctf, electron_wavelength_A

__all__ = ["ctf", "electron_wavelength_A"]
