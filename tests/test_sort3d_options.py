"""Options are checked once, and each mistake is one sentence that names option, value and cure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcsort.errors import InputError, OptionError
from hpcsort.sort3d import SortOptions


def _options(**values: Any) -> SortOptions:
    return SortOptions(instack=Path("a.star"), output_dir=Path("out"), **values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"radius": 1}, "--radius 1 is too small; give at least 2."),
        ({"img_per_grp": 1}, "--img-per-grp 1 is too small; give at least 2."),
        ({"img_per_grp": -5}, "--img-per-grp -5 is too small; give at least 2."),
        ({"nxinit": 11}, "--nxinit 11 is too small; give at least 12."),
        ({"orientation_groups": 0}, "--orientation-groups 0 is too small; give at least 1."),
        ({"nstep": 0}, "--nstep 0 is too small; give at least 1."),
        ({"depth_order": 0}, "--depth-order 0 is too small; give at least 1."),
        ({"depth_order": 7}, "--depth-order 7 would run 128 boxes at once; give 1 to 6."),
        ({"engine": "map"}, "--engine map is unknown; give subspace or maps."),
        ({"independence": "none"}, "--independence none is unknown; give halves or starts."),
        ({"map_format": "em"}, "--map-format em is unknown; give mrc or hdf."),
        ({"null": -1}, "--null -1 is too small; give at least 0."),
        ({"num_core_set": 0}, "--num-core-set 0 is too small; give at least 1."),
        ({"components": 0}, "--components 0 is too small; give at least 1."),
        ({"components": 41}, "--components 41 is above 40, the most the subspace can hold; give 1 to 40."),
        ({"max_groups": 0}, "--max-groups 0 is too small; give at least 1."),
        ({"seed": -1}, "--seed -1 is too small; give at least 0."),
        ({"angpix": 0.0}, "--angpix 0.0 is not a pixel size in A; give a positive number."),
        ({"angpix": float("nan")}, "--angpix nan is not a pixel size in A; give a positive number."),
    ],
)
def test_bad_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        _options(**values)
    assert str(caught.value) == message


@pytest.mark.parametrize("sym", ["", "q3", "c0", "c", "d-1", "42"])
def test_unknown_symmetry_is_named(sym: str) -> None:
    with pytest.raises((OptionError, InputError), match=r"sym|point group") as caught:
        _options(sym=sym)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sym", ["c1", "C4", "d2", "t", "o", "i"])
def test_known_symmetries(sym: str) -> None:
    assert _options(sym=sym).sym == sym


@pytest.mark.parametrize(
    ("values", "box"),
    [
        ({"radius": 2}, 6),
        ({"radius": 31}, 64),
        ({"radius": 31}, 65),
        ({"nxinit": 12}, 12),
        ({"nxinit": 64}, 64),
        ({}, 7),
    ],
)
def test_what_fits_the_box_passes(values: dict[str, Any], box: int) -> None:
    options = _options(**values)
    options.check_box(box)
    assert 1 <= options.radius_px(box) <= box // 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"radius": 32}, "--radius 32 does not fit the box of 64 px (2 * radius + 2 <= box); give at most 31."),
        ({"nxinit": 65}, "--nxinit 65 is larger than the box of 64 px; give at most 64."),
    ],
)
def test_what_does_not_fit_the_box_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        _options(**values).check_box(64)
    assert str(caught.value) == message


def test_membership_belongs_to_the_classical_engine() -> None:
    with pytest.raises(OptionError, match=r"--use-umat .* add --engine maps .*\.$"):
        _options(use_umat=True)
    assert _options(use_umat=True, engine="maps").use_umat


def test_the_advice_for_the_radius_fits_itself() -> None:
    for box in (7, 8, 33, 64):
        with pytest.raises(OptionError) as caught:
            _options(radius=box).check_box(box)
        _options(radius=int(str(caught.value).split()[-1].rstrip("."))).check_box(box)


def test_options_do_not_change() -> None:
    with pytest.raises(AttributeError):
        _options().seed = 3  # type: ignore[misc]
    assert _options().radius_px(64) == 30
    assert _options(radius=9).radius_px(64) == 9
