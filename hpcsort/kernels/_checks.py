"""Cheap checks of kernel arguments: shapes, dtypes, contiguity and that no point leaves the volume."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Rows of a float32 rotation matrix are of length one within rounding; the volume's margin of one voxel absorbs this.
_ROW_TOLERANCE = 1e-3


def check_array(name: str, array: NDArray[Any], dtype: type, shape: tuple[int | None, ...]) -> None:
    """Raise ValueError unless `array` is C-contiguous with this dtype and shape (None: any length)."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype or not array.flags.c_contiguous:
        kind = getattr(array, "dtype", type(array).__name__)
        raise ValueError(f"{name} must be a C-contiguous array of {np.dtype(dtype).name}, not {kind} or strided")
    if array.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(f"{name} has shape {array.shape}; expected ({wanted})")


def check_output(name: str, array: NDArray[Any], dtype: type, shape: tuple[int | None, ...]) -> None:
    """Raise ValueError unless `array` can be written and passes `check_array`."""
    check_array(name, array, dtype, shape)
    if not array.flags.writeable:
        raise ValueError(f"{name} is read-only; pass an array that can be written")


def prepare_output(name: str, out: NDArray[Any] | None, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return `out` after checking it, or a new array of this dtype and shape."""
    if out is None:
        return np.empty(shape, dtype)
    check_output(name, out, dtype, shape)
    return out


def check_half_volume(name: str, shape: tuple[int, ...]) -> int:
    """Return h for a half volume of shape (2h+1, 2h+1, h+1), or raise ValueError."""
    half = shape[2] - 1
    if half < 1 or shape != (2 * half + 1, 2 * half + 1, half + 1):
        raise ValueError(f"{name} has voxels {shape}; expected a half volume (2h+1, 2h+1, h+1)")
    if shape[0] * shape[1] * shape[2] >= 2**31:
        raise ValueError(f"{name} has {shape[0] * shape[1] * shape[2]} voxels; at most 2**31 - 1 can be indexed")
    return half


def check_interleaved(interleaved: NDArray[Any], count: int) -> int:
    """Return h of an interleaved volume that holds `count` maps, or raise ValueError."""
    check_array("interleaved", interleaved, np.float32, (None, None, None, 2, None))
    lanes = interleaved.shape[4]
    if lanes != 4 and (lanes % 8 or not lanes):
        raise ValueError(f"interleaved has {lanes} lanes; expected 4 or a multiple of 8 (see interleave)")
    if not 1 <= count <= lanes:
        raise ValueError(f"count {count} is outside 1..{lanes}, the lanes of the interleaved volume")
    return check_half_volume("interleaved", interleaved.shape[:3])


def check_geometry(
    rotations: NDArray[Any],
    px: NDArray[Any],
    py: NDArray[Any],
    pad: float,
    half: int,
    rows: NDArray[Any] | None = None,
) -> tuple[int, int]:
    """Return (n, P) after checking that every point of every section lies inside a half volume of half-width `half`.

    With `rows` only these are looked at; n is the length of the arrays all the same.
    """
    check_array("rotations", rotations, np.float32, (None, 3, 3))
    check_array("px", px, np.float32, (None,))
    check_array("py", py, np.float32, px.shape)
    if not pad >= 1:
        raise ValueError(f"pad {pad} is below 1")
    if px.size:
        reach = pad * float(np.sqrt((px * px + py * py).max())) * (1 + _ROW_TOLERANCE)
        if not reach < half:
            raise ValueError(f"points reach {reach:.1f} voxels from the centre; a half-width of {half} is too small")
    check_rows(rows, len(rotations))
    used = rotations if rows is None else rotations[rows]
    lengths = np.einsum("nij,nij->ni", used[:, :2], used[:, :2])
    if (
        not (np.abs(lengths - 1) <= _ROW_TOLERANCE).all()
        or not (np.abs(np.einsum("nj,nj->n", used[:, 0], used[:, 1])) <= _ROW_TOLERANCE).all()
    ):
        bad = int(np.argmax(~(np.abs(lengths - 1) <= _ROW_TOLERANCE).all(axis=1)))
        raise ValueError(f"rotations: the first two rows of a matrix (near particle {bad}) are not orthonormal")
    return rotations.shape[0], px.size


def check_particles(images: NDArray[Any], ctfs: NDArray[Any], n: int, pixels: int) -> None:
    """Raise ValueError unless images and ctfs are (n, P) in complex64 and float32."""
    check_array("images", images, np.complex64, (n, pixels))
    check_array("ctfs", ctfs, np.float32, (n, pixels))


def check_entries(labels: NDArray[Any], rows: NDArray[Any] | None, n: int, classes: int) -> int:
    """Return the number of entries: labels int32 in -1..classes-1, and rows, if any, int32 in 0..n-1, one for each."""
    check_array("labels", labels, np.int32, (n if rows is None else None,))
    if labels.size and not (labels.min() >= -1 and labels.max() < classes):
        raise ValueError(f"labels span {labels.min()}..{labels.max()}; expected -1..{classes - 1}")
    if rows is not None:
        check_array("rows", rows, np.int32, labels.shape)
    check_rows(rows, n)
    return labels.size


def check_rows(rows: NDArray[Any] | None, n: int) -> int:
    """Return how many particles are chosen by rows, int32 in 0..n-1, or n where all are (None)."""
    if rows is None:
        return n
    check_array("rows", rows, np.int32, (None,))
    if rows.size and not (rows.min() >= 0 and rows.max() < n):
        raise ValueError(f"rows span {rows.min()}..{rows.max()}; expected 0..{n - 1}")
    return rows.size
