"""Results as arrays and JSON: what a checkpoint holds, without pickles.

Known kinds are numbers, strings, None, NumPy arrays and scalars, lists, tuples, dictionaries, and dataclasses of this
package, nested in any way. Reading makes nothing but these, so that a file from elsewhere can run no code.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import numpy as np

__all__ = ["pack", "settled", "unpack"]

_PACKAGE = "hpcsort."


def pack(value: Any) -> tuple[Any, list[np.ndarray]]:
    """Take a value apart.

    Returns
    -------
    tree : JSON; arrays are named by their numbers.
    arrays : each array once, wherever it occurs.

    Raises
    ------
    TypeError
        A part is of another kind.
    """
    arrays: list[np.ndarray] = []
    numbers: dict[int, int] = {}

    def number(array: np.ndarray) -> int:
        if id(array) not in numbers:
            numbers[id(array)] = len(arrays)
            arrays.append(array)
        return numbers[id(array)]

    def take(part: Any) -> Any:
        # np.float64 is a float as well.
        if part is None or (isinstance(part, bool | int | float | str) and not isinstance(part, np.generic)):
            return part
        if isinstance(part, np.ndarray):
            return {"array": number(part)}
        if isinstance(part, np.generic):
            # The list keeps it alive, so that no other array gets its identity.
            return {"scalar": number(np.asarray(part))}
        if isinstance(part, list):
            return [take(one) for one in part]
        if isinstance(part, tuple):
            return {"tuple": [take(one) for one in part]}
        if isinstance(part, dict):
            return {"dict": [[take(key), take(one)] for key, one in part.items()]}
        kind = type(part)
        if dataclasses.is_dataclass(part) and kind.__module__.startswith(_PACKAGE):
            fields = {field.name: take(getattr(part, field.name)) for field in dataclasses.fields(part)}
            return {"class": f"{kind.__module__}:{kind.__qualname__}", "fields": fields}
        raise TypeError(f"a checkpoint cannot hold a {kind.__module__}.{kind.__qualname__}")

    return take(value), arrays


def unpack(tree: Any, arrays: list[np.ndarray]) -> Any:
    """Put together what `pack` took apart.

    Raises
    ------
    ValueError
        The tree names what is not there.
    """
    if not isinstance(tree, dict):
        return [unpack(one, arrays) for one in tree] if isinstance(tree, list) else tree
    match tree:
        case {"array": number}:
            return arrays[number]
        case {"scalar": number}:
            return arrays[number][()]
        case {"tuple": parts}:
            return tuple(unpack(one, arrays) for one in parts)
        case {"dict": pairs}:
            return {unpack(key, arrays): unpack(one, arrays) for key, one in pairs}
        case {"class": name, "fields": fields}:
            return _class(name)(**{key: unpack(one, arrays) for key, one in fields.items()})
    raise ValueError(f"a checkpoint holds an unknown kind: {', '.join(map(str, tree))}")


def _class(name: str) -> Any:
    module, _, qualified = name.partition(":")
    if not module.startswith(_PACKAGE) or not qualified.isidentifier():
        raise ValueError(f"a checkpoint names the class {name}, which is not one of this package")
    kind = getattr(importlib.import_module(module), qualified, None)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise ValueError(f"a checkpoint names the class {name}, which is none")
    return kind


def settled(value: Any) -> Any:
    """Return a value as it would come back from a checkpoint, its arrays read-only.

    Arrays are in C order (a copy where they are not), because sums may depend on the order in memory: a run that goes
    on must not differ from one that was never stopped.
    """
    tree, arrays = pack(value)
    arrays = [array if array.flags.c_contiguous else array.copy(order="C") for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    return unpack(tree, arrays)
