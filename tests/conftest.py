"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with small real and peer-made files that is kept beside the repository, not in it."""
    folder = Path(os.environ.get("HPCSORT_SHARED", _ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"reference files are not here ({folder}); set HPCSORT_SHARED to the folder that holds data/")
    return folder
