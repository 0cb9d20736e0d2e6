"""Which iteration of a MERIDIEN directory, and what its Tracker tells."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hpcsort.errors import InputError, OptionError
from hpcsort.refinement._text import read_bytes

_COPY = "copy it again from the refinement"
_MOST = 1e300


@dataclass(frozen=True)
class Tracker:
    """The settings of one iteration that sorting needs; lengths in pixels of the full box, angles in degrees."""

    path: Path
    stack: str
    box_px: int
    window_px: int
    radius_px: int
    pixel_size_A: float
    symmetry: str
    mask: str
    delta_deg: float
    norms: tuple[float, float] | None
    best: int | None


def iteration_folder(folder: Path, iteration: int) -> Path:
    """Folder main<iteration>, three digits at least."""
    return folder / f"main{iteration:03d}"


def complete_iterations(folder: Path) -> list[int]:
    """List the iterations of 1 and more that have a Tracker and parameters, ascending."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder of a MERIDIEN refinement with --refinement_dir")
    found = []
    for entry in folder.iterdir():
        match = re.fullmatch(r"main(\d{3,})", entry.name)
        if match and int(match[1]) > 0:
            tail = match[1]
            if (entry / f"Tracker_{tail}.json").is_file() and (entry / f"params_{tail}.txt").is_file():
                found.append(int(tail))
    return sorted(found)


def choose_iteration(folder: Path, iteration: int | None, particles: int) -> int:
    """Return the iteration asked for, else the best one according to the last complete iteration.

    Raises
    ------
    InputError, OptionError
        If the folder has no complete iteration, or not the one that was asked for or is called the best.
    """
    complete = complete_iterations(folder)
    if not complete:
        raise InputError(
            f"{folder} has no complete iteration (a folder mainNNN with Tracker_NNN.json and params_NNN.txt); give the"
            " folder of a finished MERIDIEN refinement with --refinement_dir"
        )
    listed = ", ".join(map(str, complete))
    if iteration is not None:
        if iteration < 1:
            raise OptionError(f"--niter_for_sorting {iteration} is not an iteration; choose one of {listed}")
        if not iteration_folder(folder, iteration).is_dir():
            raise OptionError(f"--niter_for_sorting {iteration} is not in {folder}; choose one of {listed}")
        return iteration
    last = read_tracker(folder, complete[-1], particles)
    if last.best is None or last.best < 1:
        raise InputError(
            f"{last.path} does not name a best iteration (constants, best); choose one of {listed} with"
            " --niter_for_sorting"
        )
    if not iteration_folder(folder, last.best).is_dir():
        raise InputError(
            f"{last.path} calls iteration {last.best} the best, which {folder} does not have; choose one of {listed}"
            " with --niter_for_sorting"
        )
    return last.best


def read_json(path: Path, what: str, most_bytes: int) -> Any:
    """Read a JSON file of at most ``most_bytes``, in which NaN and infinity are errors.

    Raises
    ------
    InputError
        If it is missing, too large, empty, cut or not JSON.
    """
    data = read_bytes(path, what, most_bytes)
    if not data.strip():
        raise InputError(f"{path} ({what}) is empty; {_COPY}")
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} ({what}), line {error.lineno}, column {error.colno}, is not JSON: the file is cut or damaged;"
            f" {_COPY}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} ({what}) is not JSON of plain numbers and text; {_COPY}") from error


def read_tracker(folder: Path, iteration: int, particles: int) -> Tracker:
    """Read and check Tracker_<iteration>.json; ``particles`` bounds its size."""
    path = iteration_folder(folder, iteration) / f"Tracker_{iteration:03d}.json"
    content = read_json(path, "settings of the iteration", (16 << 20) + 1024 * particles)
    if not isinstance(content, dict) or not isinstance(content.get("constants"), dict):
        raise InputError(f"{path} has no table «constants», so it is no Tracker of MERIDIEN; {_COPY}")
    constants: dict[str, Any] = content["constants"]
    box = _whole(path, constants, "nnxo", 8)
    best = constants.get("best")
    return Tracker(
        path=path,
        stack=_text(path, constants, "stack"),
        box_px=box,
        window_px=min(_whole(path, content, "nxinit", 2), box),
        radius_px=_radius(path, constants, box),
        pixel_size_A=_positive(path, constants, "pixel_size"),
        symmetry=_text(path, constants, "symmetry" if "symmetry" in constants else "sym"),
        mask=constants["mask3D"] if isinstance(constants.get("mask3D"), str) else "",
        delta_deg=_positive(path, content, "delta"),
        norms=None if constants.get("nonorm") is True else _norms(path, content),
        best=best if isinstance(best, int) and not isinstance(best, bool) else None,
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _is_number(value: object) -> bool:
    # An integer of hundreds of digits is no number to compute with: it has no float.
    return isinstance(value, int | float) and not isinstance(value, bool) and -_MOST <= value <= _MOST


def _refuse(path: Path, name: str, value: object, meaning: str) -> NoReturn:
    told = "is absent" if value is None else f"is {str(value)[:60]}"
    raise InputError(f"{path}: «{name}» {told}, which must be {meaning}; {_COPY}")


def _whole(path: Path, table: dict[str, Any], name: str, least: int) -> int:
    value: Any = table.get(name)
    if not _is_number(value) or value != int(value) or not least <= value <= 65536:
        _refuse(path, name, value, f"a whole number of pixels from {least} to 65536")
    return int(value)


def _positive(path: Path, table: dict[str, Any], name: str) -> float:
    value: Any = table.get(name)
    if not _is_number(value) or value <= 0:
        _refuse(path, name, value, "a positive number")
    return float(value)


def _text(path: Path, table: dict[str, Any], name: str) -> str:
    value = table.get(name)
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        _refuse(path, name, value, "a text")
    return str(value).strip()


def _radius(path: Path, constants: dict[str, Any], box: int) -> int:
    value: Any = constants.get("radius")
    if value == -1:
        return box // 2 - 2
    if not _is_number(value) or value < 1 or 2 * value + 2 > box:
        _refuse(path, "radius", value, f"a particle radius from 1 to {(box - 2) // 2} pixels for a box of {box}")
    return round(value)


def _norms(path: Path, content: dict[str, Any]) -> tuple[float, float]:
    value = content.get("avgvaradj")
    if not isinstance(value, list) or len(value) != 2 or not all(_is_number(norm) and norm > 0 for norm in value):
        _refuse(path, "avgvaradj", value, "two positive numbers, the mean norms of the half-sets")
    return float(value[0]), float(value[1])
