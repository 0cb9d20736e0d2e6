"""What a release consists of: version, metadata, and files that a user without a compiler can install."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import hpcsort

_ROOT = Path(__file__).resolve().parents[1]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())
# PEP 440, appendix B, without epochs.
_VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[a-z0-9]+(\.[a-z0-9]+)*)?")
_NEWEST_GLIBC = (2, 34)
"""RHEL 9, Debian 12 and Ubuntu 22.04 have it."""


def test_version_is_one_that_installers_order() -> None:
    assert _VERSION.fullmatch(hpcsort.__version__)
    assert _PROJECT["project"]["dynamic"] == ["version"]


def test_citation_says_what_the_package_says() -> None:
    text = (_ROOT / "CITATION.cff").read_text()
    cited = dict(re.findall(r"^([a-z-]+): (.+)$", text, flags=re.MULTILINE))
    project = _PROJECT["project"]
    assert cited["cff-version"] == "1.2.0"
    assert cited["title"] == project["name"]
    assert cited["license"] == project["license"]
    assert cited["abstract"] == project["description"]
    assert re.findall(r"^  - name: (.+)$", text, flags=re.MULTILINE) == [each["name"] for each in project["authors"]]
    assert re.findall(r"^  - (?!name)(.+)$", text, flags=re.MULTILINE) == project["keywords"]


def test_licence_is_the_one_that_is_named() -> None:
    text = (_ROOT / "LICENSE").read_text()
    assert text.startswith("BSD 3-Clause License")
    assert text.count("Redistribution") >= 2
    assert "Neither the name" in text


def test_changelog_begins_with_the_next_release() -> None:
    heads = re.findall(r"^## \[(.+?)\] - (\S+)$", (_ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert heads
    assert all(
        _VERSION.fullmatch(version) and re.fullmatch(r"unreleased|\d{4}-\d\d-\d\d", date) for version, date in heads
    )
    assert "unreleased" not in [date for _, date in heads[1:]]


def _metadata(text: str) -> Message:
    return Parser().parsestr(text)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sdist_and_wheel_hold_what_they_should(tmp_path: Path) -> None:
    for tool in ("build", "auditwheel"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed; pip install '.[test]' brings it")
    built = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(_ROOT)], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    (sdist,), (wheel,) = tmp_path.glob("*.tar.gz"), tmp_path.glob("*.whl")

    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
        info = archive.extractfile(f"{sdist.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert info is not None
        version = _metadata(info.read().decode())["Version"]
    assert {"README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md", "CMakeLists.txt", "pyproject.toml"} <= inside
    for folder in ("hpcsort/kernels/src", "tests", "jobs", "benchmarks", "docs"):
        assert any(name.startswith(f"{folder}/") for name in inside), folder
    stray = re.compile(r"\.(so|o|pyc|whl|egg-info)$|(^|/)(__pycache__|build|dist|\.venv|\.git|\.\w+_cache)(/|$)")
    assert not [name for name in inside if stray.search(name)]

    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = _metadata(archive.read(f"hpcsort-{version}.dist-info/METADATA").decode())
    assert metadata["Version"] == version
    assert metadata["License-Expression"] == _PROJECT["project"]["license"]
    outside = {name for name in names if not name.startswith(("hpcsort/", f"hpcsort-{version}.dist-info/"))}
    assert not outside
    shipped = {f"hpcsort/cluster/jobs/{path.name}" for path in (_ROOT / "jobs").iterdir()}
    modules = {path.relative_to(_ROOT).as_posix() for path in (_ROOT / "hpcsort").rglob("*.py")}
    assert shipped | modules | {"hpcsort/py.typed", f"hpcsort-{version}.dist-info/licenses/LICENSE"} <= names
    assert sum(name.endswith(".so") for name in names) == 1
    assert not [name for name in names if name.endswith((".cpp", ".hpp"))]

    shown = subprocess.run(
        [sys.executable, "-m", "auditwheel", "show", str(wheel)], capture_output=True, text=True, check=True
    ).stdout
    tags = re.search(r'"manylinux_(\d+)_(\d+)_\w+"', " ".join(shown.split()))
    assert tags is not None, shown
    assert tuple(map(int, tags.groups())) <= _NEWEST_GLIBC
