"""Damage for valid files, and what every reader must make of it: a result that keeps its promises, or one sentence.

HPCSORT_FUZZ_EXAMPLES sets how many damages of each kind are tried; without it few, and the same ones every time.
"""

from __future__ import annotations

import os
import resource
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from hpcsort.errors import HpcsortError
from hpcsort.io import ParticleTable, Smears

_EXAMPLES = os.environ.get("HPCSORT_FUZZ_EXAMPLES")
_MOST_BYTES = 64 << 20
_MOST_ADDRESSES = 4 << 30
_LONGEST_MESSAGE = 2000

FUZZ = settings(
    max_examples=int(_EXAMPLES or 60),
    deadline=timedelta(seconds=10),
    derandomize=_EXAMPLES is None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_NUMBERS = [
    np.array(value, kind).tobytes()
    for kind, values in (
        ("<i4", (0, 1, -1, 2**31 - 1, -(2**31), 1000, 65536)),
        (">i4", (1, 2**31 - 1, 65536)),
        ("<i8", (-1, 2**63 - 1, 10**12)),
        ("<f4", (np.nan, np.inf, -1.0, 1e30, 1e-40)),
        ("<f8", (np.nan, -np.inf, 1e300)),
    )
    for value in values
]
_WORDS = [
    "", "nan", "inf", "-inf", "0", "-1", "1e308", "1e999", "-1e30", "1.5", "9" * 25, "9" * 5000, "0x10", "1_0", "north",
    "é", "\u0663", "None", "<NA>", "true", "'", '"', "''", "' '", "#", "a#b", "a b", "[1,2", "data_", "data_x", "loop_",
    "_rlnImageName", "_x", "@", "1@", "0@p.mrcs", "2@p.mrcs", "../../p.mrcs", "p.mrcs", "\0", "\t", "\n", "\r\n",
    "\ufeff", ",", ";", "=", "{}", "[]", "null", "1" + "0" * 400,
]  # fmt: skip

_place = st.integers(0, 10**6)
_change = st.one_of(
    st.tuples(st.just("set"), _place, st.binary(min_size=1, max_size=1)),
    st.tuples(st.just("set"), _place, st.sampled_from(_NUMBERS)),
    st.tuples(st.just("insert"), _place, st.binary(min_size=1, max_size=6)),
    st.tuples(st.just("remove"), _place, st.binary(min_size=1, max_size=9)),
    st.tuples(st.just("cut"), _place, st.just(b"")),
)
BYTES = st.lists(_change, min_size=1, max_size=4)
"""Changes of single bytes, of numbers, and of the length of a binary file."""

_text_change = st.one_of(
    st.tuples(st.sampled_from(["word", "add", "line"]), _place, st.sampled_from(_WORDS)),
    st.tuples(st.just("word"), _place, st.floats().map(repr)),
    st.tuples(st.sampled_from(["drop", "drop line", "double line", "cut"]), _place, st.just("")),
    st.tuples(st.just("character"), _place, st.characters(exclude_categories=["Cs"])),
)
TEXT = st.lists(_text_change, min_size=1, max_size=3)
"""Changes of words, lines and characters of a text."""

Result = TypeVar("Result")


def damaged(whole: bytes, changes: list[tuple[str, int, bytes]], reach: int = 10**6) -> bytes:
    """Apply `BYTES` to a file, within its first ``reach`` bytes."""
    data = bytearray(whole)
    for kind, place, value in changes:
        start = place % max(min(len(data), reach), 1)
        if kind == "set":
            data[start : start + len(value)] = value
        elif kind == "insert":
            data[start:start] = value
        elif kind == "remove":
            del data[start : start + len(value)]
        else:
            del data[start:]
    return bytes(data)


def garbled(text: str, changes: list[tuple[str, int, str]]) -> bytes:
    """Apply `TEXT` to a text file."""
    for kind, place, value in changes:
        lines = text.split("\n")
        row = place % len(lines)
        words = lines[row].split(" ")
        column = place // 7 % len(words)
        if kind in ("word", "add", "drop"):
            words[column : column + (kind != "add")] = [] if kind == "drop" else [value]
            lines[row] = " ".join(words)
        elif kind in ("line", "drop line", "double line"):
            lines[row : row + (kind != "line")] = {"line": [value], "drop line": []}.get(kind, [lines[row]] * 2)
        text = "\n".join(lines)
        start = place % max(len(text), 1)
        if kind == "character":
            text = text[:start] + value + text[start + 1 :]
        elif kind == "cut":
            text = text[:start]
    return text.encode("utf-8", "surrogatepass")


def survives(read: Callable[[], Result], check: Callable[[Result], object]) -> None:
    """Ask that ``read`` gives something that passes ``check``, or one sentence, and takes little memory for it."""
    with little_memory():
        try:
            result = read()
        except HpcsortError as error:
            sentence = str(error)
            assert sentence
            assert sentence.isprintable() or not any(mark in sentence for mark in "\n\r"), sentence
            assert len(sentence) < _LONGEST_MESSAGE, sentence
            return
        check(result)


@contextmanager
def little_memory() -> Iterator[None]:
    """Fail where Python and NumPy ask for more than a small file can need; HDF5 gets no more than the limit."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MOST_ADDRESSES, before[1]))
    tracemalloc.start(1)
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert peak < _MOST_BYTES, f"{peak} bytes of memory for a small file"


def whole_table(table: ParticleTable) -> None:
    """Check what a particle table promises to those who compute with it."""
    count = len(table)
    assert count > 0
    assert table.angles_deg.shape == (count, 3)
    assert table.shifts_px.shape == (count, 2)
    for name in ("angles_deg", "shifts_px", "defocus_u_A", "defocus_v_A", "defocus_angle_deg", "voltage_kV", "cs_mm",
                 "amplitude_contrast", "phase_shift_deg", "bfactor_A2", "ctf_scale", "pixel_sizes_A"):  # fmt: skip
        values = getattr(table, name)
        assert len(values) == count
        assert np.isfinite(values).all(), name
        assert np.abs(values).max() <= 1e6, name
    assert (table.pixel_sizes_A > 0).all()
    assert (table.voltage_kV > 0).all()
    if table.box_px is not None:
        assert 0 < table.box_px <= 10**6
        assert np.abs(table.shifts_px).max() <= table.box_px / 2
    assert (table.optics_group >= 0).all()
    assert (table.optics_group < len(table.optics_group_names)).all()
    assert (table.stack_id >= 0).all()
    assert (table.stack_id < len(table.stack_paths)).all()
    assert (table.stack_index >= 0).all()
    assert len(table.frame) == len(table.micrograph) == len(table.random_subset) == count
    if table.smears is not None:
        assert len(table.smears) == count
        whole_smears(table.smears)


def whole_smears(smears: Smears) -> None:
    """Check that smears are finite poses whose probabilities sum to one for each particle."""
    assert np.isfinite(smears.angles_deg).all()
    assert np.isfinite(smears.shifts_px).all()
    assert (smears.weight >= 0).all()
    if len(smears):
        np.testing.assert_allclose(np.bincount(smears.owner, smears.weight, minlength=len(smears)), 1.0, atol=1e-5)


def whole_map(result: tuple[np.ndarray, float]) -> None:
    """Check that a map has three axes and a voxel size that is known or 0."""
    data, voxel_A = result
    assert data.ndim == 3
    assert data.size > 0
    assert data.dtype == np.float32
    assert np.isfinite(voxel_A)
    assert voxel_A >= 0
