"""The package under test is the installed one, compiled kernels and data files included."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.resources import files
from pathlib import Path

import pytest
from mpi_helpers import run_alone

import hpcsort
from hpcsort import kernels

_ASK = "import hpcsort; from hpcsort import kernels; print(hpcsort.__file__, kernels.backend(), sep='\\n')"


@pytest.mark.skipif(
    os.environ.get("HPCSORT_KERNELS") == "numpy", reason="the NumPy twins were asked for by HPCSORT_KERNELS"
)
def test_compiled_kernels_are_used() -> None:
    assert kernels.backend() == "native", (
        f"{Path(hpcsort.__file__).parent} has no compiled kernels, so the slow NumPy twins serve in their place: "
        'install with pip install ".[mpi,test]" and start pytest itself, because python -m pytest and a PYTHONPATH '
        "put the source folder before the installed package"
    )


def test_other_processes_use_the_same_package(tmp_path: Path) -> None:
    checkout = Path(__file__).resolve().parents[1]
    for folder in (tmp_path, checkout):
        done = run_alone("-c", _ASK, cwd=folder)
        assert done.stdout.splitlines() == [hpcsort.__file__, kernels.backend()], done.stderr


def test_types_are_shipped() -> None:
    assert files("hpcsort").joinpath("py.typed").is_file()


def test_command_and_version_are_installed() -> None:
    try:
        installed = version("hpcsort")
    except PackageNotFoundError:
        pytest.skip("hpcsort is not installed here, it is imported from its source folder")
    assert hpcsort.__version__ == installed
    (script,) = entry_points(group="console_scripts", name="hpcsort")
    assert script.value == "hpcsort.cli.main:main"
