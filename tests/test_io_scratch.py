"""Images are read from the copy on a node's own disk where there is one; everything else keeps the stack's name."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from sort3d_runs import simulate_small

from hpcsort.io import ImageReader, read_particles


def test_the_copy_is_read_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = simulate_small(tmp_path / "data", 5)
    table = read_particles(made.star)
    with ImageReader(table) as reader:
        original = reader.read([1, 4])
    copy = tmp_path / "scratch" / str(made.stack).lstrip("/")
    monkeypatch.setenv("HPCSORT_SCRATCH", str(tmp_path / "scratch"))
    with ImageReader(table) as reader:
        assert np.array_equal(reader.read([1, 4]), original)
    copy.parent.mkdir(parents=True)
    with mrcfile.open(made.stack) as stack:
        mrcfile.write(copy, stack.data + 1)
    with ImageReader(table) as reader:
        assert np.array_equal(reader.read([1, 4]), original + 1)
    assert read_particles(made.star).stack_paths == [made.stack]
