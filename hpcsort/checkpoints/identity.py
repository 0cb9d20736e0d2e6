"""What makes a run the same run: its options as JSON and back, and the hashes of its inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from hpcsort.errors import InputError

__all__ = ["hash_files", "options_as_json", "options_from_json"]

_PIECES, _PIECE_BYTES = 65, 1 << 16

Options = TypeVar("Options")


def options_as_json(options: Any) -> dict[str, Any]:
    """Return the fields of a dataclass of options; paths as absolute texts."""
    return {name: _plain(value) for name, value in asdict(options).items()}


def options_from_json(kind: type[Options], values: Mapping[str, Any]) -> Options:
    """Return options of a kind from what `options_as_json` gave; other names are left out.

    Raises
    ------
    InputError
        A value is of another kind.
    """
    kinds = get_type_hints(kind)
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    try:
        return kind(**{name: _typed(value, kinds[name]) for name, value in values.items() if name in known})
    except TypeError as error:
        raise InputError(f"the record of the run holds options of another kind ({error}); start it anew.") from error


def hash_files(files: Iterable[Path], stacks: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """SHA-256 of files; of stacks, which are large, the size and the hash of pieces spread evenly over them."""
    hashes: dict[str, dict[str, Any]] = {}
    for path in files:
        hashes[str(path.absolute())] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    for path in stacks:
        size = path.stat().st_size
        digest = hashlib.sha256()
        with path.open("rb") as stack:
            for piece in range(_PIECES):
                stack.seek(max(size - _PIECE_BYTES, 0) * piece // (_PIECES - 1))
                digest.update(stack.read(_PIECE_BYTES))
        hashes[str(path.absolute())] = {"bytes": size, "sha256_of_pieces": digest.hexdigest()}
    return hashes


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _typed(value: Any, kind: Any) -> Any:
    """Turn texts back to paths and lists to tuples where the field has them."""
    kinds = [kind, *get_args(kind)] if isinstance(kind, UnionType) else [kind]
    if isinstance(value, str) and Path in kinds:
        return Path(value)
    if isinstance(value, list):
        inner = next((get_args(one) for one in kinds if getattr(one, "__origin__", None) is tuple), ())
        return tuple(_typed(part, inner[0] if inner else Any) for part in value)
    return value
