from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
from scipy import constants

from hpcsort.optics import ctf, electron_wavelength_A


@pytest.mark.parametrize("voltage_kV", [80.0, 120.0, 200.0, 300.0])
def test_wavelength_follows_relativity(voltage_kV: float) -> None:
    energy = voltage_kV * 1e3 * constants.e
    momentum = math.sqrt(energy * (energy + 2 * constants.m_e * constants.c**2)) / constants.c
    assert float(electron_wavelength_A(voltage_kV)) == pytest.approx(constants.h / momentum * 1e10, rel=1e-5)


def _one(x: float, y: float, box: int, pixel: float, u: float, v: float, angle: float, kv: float, cs: float, q: float):
    """Wave optics, one pixel: the aberration function chi, then minus the imaginary part of the rotated wave."""
    s = math.hypot(x, y) / (box * pixel)
    wavelength = float(electron_wavelength_A(kv))
    theta = math.atan2(y, x) - math.radians(angle)
    defocus = u * math.cos(theta) ** 2 + v * math.sin(theta) ** 2
    chi = 2 * math.pi / wavelength * (cs * 1e7 * (wavelength * s) ** 4 / 4 - defocus * (wavelength * s) ** 2 / 2)
    return -(cmath.exp(1j * chi) * complex(math.sqrt(1 - q * q), -q)).imag


def test_ctf_agrees_with_wave_optics_pixel_by_pixel() -> None:
    rng = np.random.default_rng(0)
    px, py = rng.integers(-32, 33, (2, 41))
    u, v = rng.uniform(5000, 30000, (2, 7))
    angle = rng.uniform(0, 180, 7)
    values = ctf(px, py, 64, 3.0, u, v, angle, 300.0, 2.7, 0.1)
    assert values.dtype == np.float32
    expected = [
        [_one(x, y, 64, 3.0, *row, 300.0, 2.7, 0.1) for x, y in zip(px, py, strict=True)]
        for row in zip(u, v, angle, strict=True)
    ]
    np.testing.assert_allclose(values, expected, atol=2e-6)


def test_origin_shows_the_amplitude_contrast_and_density_is_white() -> None:
    assert ctf([0], [0], 64, 2.0, 15000, 14000, 30, 300, 2.7, 0.07) == pytest.approx(0.07)
    assert ctf([0], [0], 64, 2.0, 15000, 14000, 30, 300, 2.7, 0.0, phase_shift_deg=90) == pytest.approx(1.0)
    assert (ctf([1, 2], [0, 1], 64, 2.0, 15000, 14000, 30, 300, 2.7, 0.07) > 0.07).all()


def test_astigmatism_axis_turns_with_the_angle() -> None:
    turned = ctf([0], [9], 64, 2.0, 20000, 12000, 90 + 20, 300, 2.7, 0.1)
    straight = ctf([9], [0], 64, 2.0, 20000, 12000, 20, 300, 2.7, 0.1)
    np.testing.assert_allclose(turned, straight, atol=1e-6)
    swapped = ctf([9], [0], 64, 2.0, 12000, 20000, 20 + 90, 300, 2.7, 0.1)
    np.testing.assert_allclose(swapped, straight, atol=1e-6)


def test_b_factor_and_scale_dampen() -> None:
    plain = ctf([0, 8, 16], [0, 0, 0], 32, 2.0, 15000, 15000, 0, 200, 2.0, 0.1)
    damped = ctf([0, 8, 16], [0, 0, 0], 32, 2.0, 15000, 15000, 0, 200, 2.0, 0.1, bfactor_A2=100.0, scale=0.5)
    s2 = (np.array([0, 8, 16]) / 64.0) ** 2
    np.testing.assert_allclose(damped[0], 0.5 * plain[0] * np.exp(-25.0 * s2), rtol=1e-5)


def test_rows_do_not_depend_on_their_company() -> None:
    rng = np.random.default_rng(1)
    px, py = rng.integers(-20, 21, (2, 101))
    u = rng.uniform(5000, 30000, 131)
    together = ctf(px, py, 40, 1.5, u, u - 300, 45, 300, 2.7, 0.1)
    for i in (0, 1, 63, 64, 130):
        np.testing.assert_array_equal(ctf(px, py, 40, 1.5, u[i], u[i] - 300, 45, 300, 2.7, 0.1)[0], together[i])


def test_no_particles_and_no_pixels() -> None:
    assert ctf([1], [2], 8, 1.0, np.empty(0), np.empty(0), 0, 300, 2.7, 0.1).shape == (0, 1)
    assert ctf([], [], 8, 1.0, [1e4, 2e4], 1e4, 0, 300, 2.7, 0.1).shape == (2, 0)
