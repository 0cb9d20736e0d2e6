"""Floating point operations and bytes of each kernel, counted from its loops in hpcsort/kernels/src/*.hpp.

A pixel's counts are those that the loops carry out: empty lanes count, and so do both halves of a symmetric tile. Bytes
are loads and stores, that is traffic of the innermost cache. A multiply-add is two operations.
"""

from __future__ import annotations

from typing import NamedTuple

from hpcsort import kernels

_LOCATE = 31  # operations of Block::locate
_LOCATE_BYTES = 4 * (2 + 11)  # reads px, py; writes corner, fx, four weights, sign; these are read again once
_READ_BYTES = 4 * (3 + 2 * 3)  # image and CTF, and both again as re, im, ctf
NATIVE_FLOATS = {"avx512": 16, "avx2": 8}


class Count(NamedTuple):
    """Operations and bytes of a Fourier pixel, or of a particle in the kernels of latents."""

    operations: float
    bytes: float


def _lanes(maps: int) -> int:
    return kernels.lane_count(maps)


def _interpolated(floats: int) -> Count:
    """Voxels::interpolate after Block::locate and Block::read with the CTF in the weights."""
    return Count(_LOCATE + 5 + 17 * floats, _LOCATE_BYTES + _READ_BYTES + 4 * 8 * floats)


def score_sections(maps: int) -> Count:
    """score_block: three multiply-adds per float."""
    floats = 2 * _lanes(maps)
    section = _interpolated(floats)
    return Count(section.operations + 6 * floats, section.bytes)


def section_moments(maps: int) -> Count:
    """fill_rows, then product_data and the tiles of products; every factor of a tile is loaded once a row."""
    lanes, native = _lanes(maps), NATIVE_FLOATS.get(kernels.instruction_set(), 4)
    section = _interpolated(2 * lanes)
    operations, loads = section.operations, 2 * lanes  # the rows' store
    width = 4 if lanes == 4 else 16 if native == 16 and lanes > 8 else 8
    most = 16 if width == 16 else 8
    for column in range(0, maps, width):
        operations += 4 * width
        loads += 2 * width
        for first in range(column, maps, most):
            height = min(-(-(maps - first) // 4) * 4, most)
            operations += 2 * 2 * height * width
            loads += 2 * (height + width)
    return Count(operations, section.bytes + 4 * loads)


def subtract_sections(maps: int) -> Count:
    """subtract_block: a multiply-add per float, coefficients from memory, two floats written."""
    floats = 2 * _lanes(maps)
    section = _interpolated(floats)
    return Count(section.operations + 2 * floats + 16, section.bytes + 4 * (floats + 2))


def leave_one_out_gains(_: int) -> Count:
    """leave_out: four pairs of records of 4 floats, twice over (values and squared weights), and 20 for the gain."""
    return Count(_LOCATE + 1 + 4 * (8 * 2 * 2 + 1) + 20 + 20, _LOCATE_BYTES + _READ_BYTES + 4 * (4 * 8 + 3 * 2))


def insert_sections(_: int) -> Count:
    """fill_records and add_records: eight records of 4 floats read, added to, and written."""
    return Count(_LOCATE + 1 + 5 + 8 + 8 * 8, _LOCATE_BYTES + _READ_BYTES + 4 * (8 + 2 * 8 * 4))


def backproject_moments(moments: int, weights: int, voxels: float) -> Count:
    """Short records as in insert_sections; then add_long_record on the ``voxels`` that a pixel of a pair touches."""
    short = insert_sections(1)
    length = kernels.moment_record_length(moments, weights)
    data = min(-(-2 * moments // 16) * 16, length)
    # Two particles: two multiply-adds per float of data, one per float of weights; their factors come from memory.
    operations = 2 * 2 * (2 * data + (length - data))
    loads = 2 * length + 2 * (2 * data + (length - data))
    return Count(short.operations + voxels * operations, short.bytes + 8 * 8 + voxels * 4 * (loads + 8))


def latent_posteriors(latents: int) -> Count:
    """Factorise, two solutions, and every column of the inverse; a multiply-add reads 16 bytes of a particle."""
    columns = sum(2 * (latents - a) ** 2 / 2 for a in range(latents))
    pairs = latents**3 / 6 + latents**2 + columns
    return Count(2 * pairs, 16 * pairs)


def moment_weights(latents: int, fixed: int) -> Count:
    """Mixed rows of the covariance, then their products with the transform."""
    free = latents - fixed
    pairs = free**2 + free * latents * free + free * (free + 1) / 2 * (free + 1) + 2 * free * fixed
    return Count(2 * pairs, 16 * pairs)


def marginal_moments(latents: int, fixed: int) -> Count:
    """Factorise all and the fixed ones, solve for each free one, and the Schur complement."""
    free = latents - fixed
    pairs = (latents**3 + fixed**3) / 6 + latents**2 / 2 + fixed**2
    pairs += free * fixed**2 + free * fixed + free * (free + 1) / 2 * fixed
    return Count(2 * pairs, 16 * pairs)
