"""Pixels of simulated micrograph pairs: particles of one field in both views, ice, carbon, dust."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy.fft

from hpcsort.geometry import relion_matrices
from hpcsort.optics import ctf
from hpcsort.parallel import stream
from hpcsort.simulation.sections import SectionMaker, half_plane, image_from_half_plane
from hpcsort.simulation.tilt_options import TiltPairOptions

__all__ = ["TiltField", "density_scale", "draw_field", "make_micrograph", "tilt_matrix"]

_GREY = 100.0
_RAMP = 3.0
_CARBON_GREY, _CARBON_NOISE = -8.0, 1.5
_DUST_SIGMAS = 40.0
_TRIES = 200
_STRIPS = 12

Floats = npt.NDArray[np.float64]
Micrograph = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TiltField:
    """Particles of one pair: places in pixels from the middle of the micrographs, rotations, heights."""

    places: tuple[Floats, Floats]
    rotations: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
    heights_A: tuple[Floats, Floats]
    state: npt.NDArray[np.int64]
    defocus_A: tuple[float, float]
    angle_deg: float


def tilt_matrix(options: TiltPairOptions) -> Floats:
    """Rotation of the specimen (x, y, z) from the untilted to the tilted view."""
    a, t = np.deg2rad(options.axis_deg), np.deg2rad(options.tilt_deg)
    x, y = np.cos(a), np.sin(a)
    cross = np.array([[0, 0, y], [0, 0, -x], [-y, x, 0]])
    about = np.eye(3) + np.sin(t) * cross + (1 - np.cos(t)) * cross @ cross
    w = np.deg2rad(options.turn_deg)
    turn = np.array([[np.cos(w), -np.sin(w), 0], [np.sin(w), np.cos(w), 0], [0, 0, 1]])
    return np.asarray(turn @ about)


def draw_field(options: TiltPairOptions, number: int, box: int, pixel_A: float) -> TiltField:
    """Draw the particles of pair ``number`` that both views show; ``box`` in pixels keeps them apart."""
    rng = stream(options.seed, "tilt pair", number)
    edge = options.size_px / 2
    places: list[Floats] = []
    # near the edges, windows will be cut off: particles lie everywhere
    for _ in range(_TRIES * options.per_micrograph):
        place = rng.uniform(-edge, edge - 1, 2)
        if all(np.hypot(*(place - other)) > 0.55 * box for other in places):
            places.append(place)
        if len(places) == options.per_micrograph:
            break
    flat = np.array(places)
    height = rng.uniform(-0.5, 0.5, len(flat)) * options.ice_A
    tilt = tilt_matrix(options)
    moved = np.column_stack([flat * pixel_A, height]) @ tilt.T
    tilted = moved[:, :2] / pixel_A + np.array(options.shift_px)
    seen = (np.abs(tilted) < edge - 1).all(axis=1)
    flat, tilted, height, moved = flat[seen], tilted[seen], height[seen], moved[seen]
    angles = np.column_stack(
        [rng.uniform(-180, 180, len(flat)), np.rad2deg(np.arccos(rng.uniform(-1, 1, len(flat)))), np.zeros(len(flat))]
    )
    if options.views:
        angles = angles[:0] if not len(flat) else _few_views(options)[rng.integers(options.views, size=len(flat))]
    angles = np.column_stack([angles[:, :2], rng.uniform(-180, 180, len(flat))])
    upright = relion_matrices(angles)
    low, high = options.defocus_range_A
    return TiltField(
        places=(flat, tilted),
        rotations=(upright, tilt @ upright),
        heights_A=(height, moved[:, 2]),
        state=rng.integers(options.states, size=len(flat)),
        defocus_A=(float(rng.uniform(low, high)), float(rng.uniform(low, high))),
        angle_deg=float(rng.uniform(0, 180)),
    )


def _few_views(options: TiltPairOptions) -> Floats:
    rng = stream(options.seed, "views")
    cosines = rng.uniform(-1, 1, options.views)
    return np.column_stack(
        [rng.uniform(-180, 180, options.views), np.rad2deg(np.arccos(cosines)), np.zeros(options.views)]
    )


def density_scale(options: TiltPairOptions, maker: SectionMaker, box: int, pixel_A: float) -> float:
    """Factor that gives projections, seen through the CTF in the middle of the range, the variance asked for."""
    px, py = half_plane(box)
    middle = float(np.mean(options.defocus_range_A))
    transfer = ctf(
        px, py, box, pixel_A, middle, middle, 0.0, options.voltage_kV, options.cs_mm, options.amplitude_contrast,
        options.phase_shift_deg,
    )[0]  # fmt: skip
    images = [
        image_from_half_plane(maker.section(matrix, px, py) * transfer, px, py, box)
        for matrix in relion_matrices(np.array([[0.0, 0, 0], [40, 60, 0], [120, 90, 0]]))
    ]
    power = float(np.mean([image.astype(np.float64).var() for image in images]))
    return math.sqrt((options.snr or 1.0) / power)


def make_micrograph(
    options: TiltPairOptions,
    number: int,
    side: int,
    field: TiltField,
    makers: list[SectionMaker],
    pixel_A: float,
    scale: float,
) -> Micrograph:
    """Make one micrograph.

    Parameters
    ----------
    options : of the run.
    number, side : which pair, and 0 for the untilted view or 1 for the tilted.
    field : particles of the pair.
    makers : of the states' densities.
    pixel_A : pixel size.
    scale : factor of the densities, from `density_scale`.

    Returns
    -------
    float32 (size, size) [y, x], particles dark.
    """
    size, box = options.size_px, makers[0].box_px
    rng = stream(options.seed, "micrograph", number, side)
    shape = (size, size)
    image = np.zeros(shape, np.float32)
    if options.snr > 0:
        image += rng.standard_normal(shape, np.float32)
        image += np.float32(options.ice_noise) * _ice(options, side, field, pixel_A, rng)
    y, x = (np.linspace(-1, 1, size, dtype=np.float32) * slope for slope in rng.uniform(-_RAMP, _RAMP, 2))
    film = _film(options, number, side)
    if film is not None:
        # thick at its edge and everywhere noisier
        image += film * (np.float32(_CARBON_GREY) + np.float32(_CARBON_NOISE) * rng.standard_normal(shape, np.float32))
    image += np.float32(_GREY) + y[:, None] + x
    px, py = half_plane(box)
    transfer = _transfer(options, side, field, px, py, box, pixel_A)
    for row, (place, matrix) in enumerate(zip(field.places[side], field.rotations[side], strict=True)):
        exact = place + size // 2
        pixel = np.floor(exact + 0.5).astype(int)
        rest = exact - pixel
        section = makers[field.state[row]].section(matrix, px, py) * transfer[row]
        section *= np.exp(-2j * np.pi / box * (px * rest[0] + py * rest[1])).astype(np.complex64)
        _add(image, -np.float32(scale) * image_from_half_plane(section, px, py, box), pixel)
    _add_dust(image, options, rng)
    return image


def _ice(options: TiltPairOptions, side: int, field: TiltField, pixel_A: float, rng: np.random.Generator) -> Micrograph:
    """Noise of variance 1 before it passes the CTF, in strips of equal defocus."""
    size = options.size_px
    spectrum = scipy.fft.rfft2(rng.standard_normal((size, size), np.float32))
    if options.ice_noise == 0:
        return np.zeros((size, size), np.float32)
    middle = size // 2
    normal = tilt_matrix(options)[:, 2] if side else np.array([0.0, 0.0, 1.0])
    shift = np.array(options.shift_px) * side
    axis = np.arange(size) - middle
    rise = -((axis - shift[0]) * normal[0] + ((axis - shift[1]) * normal[1])[:, None]) / normal[2] * pixel_A
    edges = np.linspace(rise.min(), rise.max(), _STRIPS + 1) if side else np.array([-1.0, 1.0])
    fy, fx = np.meshgrid(np.fft.fftfreq(size, pixel_A), np.fft.rfftfreq(size, pixel_A), indexing="ij")
    image = np.zeros((size, size), np.float32)
    for low, high in pairwise(edges.tolist()):
        defocus = field.defocus_A[side] + (low + high) / 2
        transfer = ctf(
            fx, fy, 1, 1.0, defocus + 200.0, defocus - 200.0, field.angle_deg, options.voltage_kV, options.cs_mm,
            options.amplitude_contrast, options.phase_shift_deg,
        )  # fmt: skip
        strip = (rise >= low) & (rise <= high)
        image[strip] = scipy.fft.irfft2(spectrum * transfer[0].reshape(fx.shape), s=image.shape)[strip]
    return image


def _transfer(
    options: TiltPairOptions,
    side: int,
    field: TiltField,
    px: npt.NDArray[np.int64],
    py: npt.NDArray[np.int64],
    box: int,
    pixel_A: float,
) -> npt.NDArray[np.float32]:
    defocus = field.defocus_A[side] + field.heights_A[side]
    return ctf(
        px, py, box, pixel_A, defocus + 200.0, defocus - 200.0, field.angle_deg, options.voltage_kV, options.cs_mm,
        options.amplitude_contrast, options.phase_shift_deg,
    )  # fmt: skip


def _add(image: Micrograph, window: Micrograph, pixel: npt.NDArray[np.int64]) -> None:
    """Add a window whose index box // 2 lies on a pixel (x, y); what sticks out is cut off."""
    box = len(window)
    left, top = (pixel - box // 2).tolist()
    rows = slice(max(top, 0), min(top + box, image.shape[0]))
    columns = slice(max(left, 0), min(left + box, image.shape[1]))
    image[rows, columns] += window[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def _add_dust(image: Micrograph, options: TiltPairOptions, rng: np.random.Generator) -> None:
    for patch in range(options.dust):
        y, x = rng.integers(0, options.size_px, 2).tolist()
        reach = 0 if patch % 3 == 0 else int(rng.integers(1, 3))
        sign = 1.0 if patch % 2 else -1.0
        image[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = _GREY + sign * _DUST_SIGMAS


def _film(options: TiltPairOptions, number: int, side: int) -> Micrograph | None:
    """How much carbon there is in each pixel, 0 or 1 with a soft edge, through one corner."""
    if not options.carbon or number % 3:
        return None
    axis = np.linspace(-1, 1, options.size_px, dtype=np.float32)
    distance = (axis[:, None] + axis) / np.float32(math.sqrt(2)) - np.float32(1.1 - 0.05 * side)
    return np.asarray(1 / (1 + np.exp(-np.clip(distance * 40, -30, 30))), np.float32)
