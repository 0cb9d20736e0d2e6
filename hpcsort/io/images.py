"""Images of particles: each rank reads only its own, stack by stack and in file order."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from hpcsort.errors import InputError
from hpcsort.io.particles import ParticleTable
from hpcsort.io.scratch import scratch_copy
from hpcsort.io.stacks import Stack, open_stack

# Each stack holds a file open; per-micrograph stacks can be more than a process may open.
_OPEN_STACKS = 64
_CHUNK = 256
_LEAST_SPREAD = 0.2
"""Mean absolute deviation of the pixels over their standard deviation, 0.8 for noise: less where few outweigh all."""


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be sorted.

    Attributes
    ----------
    row : int
        0-based place in the table that was given.
    star_row : int
        1-based row in the STAR file.
    stack : Path
        The stack file.
    image : int
        1-based index in the stack.
    not_finite : int
        Number of pixels that are NaN or infinite; 0 for a constant image.
    value : float
        The value of a constant image or of the outlier, else NaN.
    outlier : tuple of int or None
        Column and row (from 1) of a pixel that outweighs all others together, such as the trace of an X-ray.
    """

    row: int
    star_row: int
    stack: Path
    image: int
    not_finite: int
    value: float
    outlier: tuple[int, int] | None = None

    def describe(self) -> str:
        """One clause: stack, image, STAR row and what is wrong."""
        if self.not_finite:
            fault = f"has {self.not_finite} NaN or infinite pixels"
        elif self.outlier is not None:
            column, row = self.outlier
            fault = f"has an outlier: the pixel of {self.value:g} in column {column}, row {row} outweighs all others"
        else:
            fault = f"is constant (every pixel {self.value:g})"
        return f"image {self.image} of {self.stack} (STAR row {self.star_row}) {fault}"


class ImageReader:
    """Reads the images of a particle table; opens each stack when it is first needed.

    Parameters
    ----------
    table
        N particles whose stacks are all of `table.box_px`.
    """

    def __init__(self, table: ParticleTable) -> None:
        self.table = table
        self._stacks: OrderedDict[int, Stack] = OrderedDict()

    def __enter__(self) -> ImageReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, rows: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Read images, grouped by stack and in ascending file order, and return them in asked order.

        Parameters
        ----------
        rows
            (k,) 0-based rows of the table, any order, repeats allowed.

        Returns
        -------
        numpy.ndarray
            (k, box, box) float32 [y, x], C-contiguous, native byte order, as in the file (nothing normalised).

        Raises
        ------
        InputError
            If a stack is absent, has changed since the table was read, or the box size is unknown.
        """
        chosen = np.asarray(rows, dtype=np.int64).reshape(-1)
        table, box = self.table, self.table.box_px
        if box is None:
            raise InputError(f"no stack of {table.source} was found; name the folder that holds them with --datadir")
        out = np.empty((chosen.size, box, box), dtype=np.float32)
        stack_of = table.stack_id[chosen]
        for number in np.unique(stack_of).tolist():
            places = np.flatnonzero(stack_of == number)
            stack = self._open(number)
            if stack.shape[1:] != (box, box):
                size = f"{stack.shape[2]} x {stack.shape[1]}"
                raise InputError(
                    f"{stack.path} has images of {size} px where {box} x {box} are expected; restore the file"
                )
            out[places] = stack.read(table.stack_index[chosen[places]])
        return out

    def close(self) -> None:
        """Close all stacks; a later `read` opens them again."""
        for stack in self._stacks.values():
            stack.close()
        self._stacks.clear()

    def _open(self, number: int) -> Stack:
        if number in self._stacks:
            self._stacks.move_to_end(number)
            return self._stacks[number]
        stack = open_stack(scratch_copy(self.table.stack_paths[number]))
        self._stacks[number] = stack
        if len(self._stacks) > _OPEN_STACKS:
            self._stacks.popitem(last=False)[1].close()
        return stack


def find_bad_images(images: ImageReader, rows: npt.ArrayLike) -> list[BadImage]:
    """Read (k,) rows of the reader's table and list the bad ones (see `judge_images`).

    Images are read a few hundred at a time; for images already in memory see `judge_images`.
    """
    chosen = np.asarray(rows, dtype=np.int64).reshape(-1)
    bad: list[BadImage] = []
    for start in range(0, chosen.size, _CHUNK):
        part = chosen[start : start + _CHUNK]
        bad += judge_images(images.read(part), part, images.table)
    return bad


def judge_images(data: npt.NDArray[np.float32], rows: npt.ArrayLike, table: ParticleTable) -> list[BadImage]:
    """List the bad ones among images (k, ny, nx) that belong to (k,) rows of `table`, in the order given.

    Bad are images with NaN or infinite pixels, constant ones, and those of which a few pixels outweigh all others.
    """
    chosen = np.asarray(rows, dtype=np.int64).reshape(-1)
    if len(chosen) != len(data):
        raise ValueError(f"{len(chosen)} rows for {len(data)} images")
    if not len(chosen):
        return []
    # All at once for the many that are good; the others are looked at one by one.
    suspect = np.flatnonzero(~_plainly_good(data))
    return [bad for place in suspect if (bad := _judged(data[place], int(chosen[place]), table))]


def _plainly_good(data: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Images (k,) that `_judged` need not look at: neither constant nor ruled by few pixels, and all numbers finite."""
    flat = data.reshape(len(data), -1)
    with np.errstate(invalid="ignore", over="ignore"):
        deviation = np.abs(flat - flat.mean(axis=1, dtype=np.float64, keepdims=True).astype(np.float32))
        spread = deviation.mean(axis=1, dtype=np.float64)
        power = np.einsum("np,np->n", deviation, deviation) / max(flat.shape[1], 1)
        # A margin, so that rounding decides nothing; comparisons with NaN are false.
        return np.asarray((spread > 1.01 * _LEAST_SPREAD * np.sqrt(power)) & (power > 0) & np.isfinite(power))


def _judged(image: npt.NDArray[np.float32], row: int, table: ParticleTable) -> BadImage | None:
    not_finite = image.size - int(np.count_nonzero(np.isfinite(image)))
    value, outlier = float("nan"), None
    if not not_finite:
        deviation = np.abs(image - image.mean(dtype=np.float64))
        constant = bool((image == image.flat[0]).all())
        if not constant and deviation.mean() >= _LEAST_SPREAD * np.sqrt(np.mean(deviation**2)):
            return None
        y, x = divmod(int(np.argmax(deviation)), image.shape[1])
        value, outlier = float(image[y, x]), None if constant else (x + 1, y + 1)
    return BadImage(
        row=row,
        star_row=int(table.source_row[row]) + 1,
        stack=table.stack_paths[table.stack_id[row]],
        image=int(table.stack_index[row]) + 1,
        not_finite=not_finite,
        value=value,
        outlier=outlier,
    )
