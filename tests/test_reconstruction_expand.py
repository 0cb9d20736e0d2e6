"""Symmetry expansion and half-sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from particle_cases import RELION_30, make_stack, read_30

from hpcsort.errors import InputError
from hpcsort.geometry import point_group, relion_matrices
from hpcsort.io import ImageReader, ParticleTable, Smears, read_particles, write_particles
from hpcsort.reconstruction import EXPANDED_FROM, expand_symmetry, half_sets


def _table(folder: Path, count: int = 3, **columns: list) -> ParticleTable:
    make_stack(folder / "p.mrcs", n=count)
    base = {name: [values[row % 3] for row in range(count)] for name, values in RELION_30.items()}
    return read_30(folder, {**base, "rlnImageName": [f"{row + 1}@p.mrcs" for row in range(count)], **columns})


@pytest.mark.parametrize("name", ["C1", "C5", "D7", "T", "O", "I"])
def test_copies_see_the_same_image_at_the_mates_poses(tmp_path: Path, name: str) -> None:
    operators = point_group(name)
    table = _table(tmp_path)
    result = expand_symmetry(table, operators)
    order = len(operators)
    assert len(result) == 3 * order
    origin = np.repeat(np.arange(3), order)
    np.testing.assert_array_equal(result.frame[EXPANDED_FROM], origin)
    for field in ("stack_id", "stack_index", "source_row", "shifts_px", "defocus_u_A", "optics_group"):
        np.testing.assert_array_equal(getattr(result, field), getattr(table, field)[origin])
    wanted = (relion_matrices(table.angles_deg)[:, None] @ operators).reshape(-1, 3, 3)
    np.testing.assert_allclose(relion_matrices(result.angles_deg), wanted, atol=1e-9)
    np.testing.assert_array_equal(result.angles_deg[::order], table.angles_deg)
    np.testing.assert_array_equal(result.frame["rlnAngleTilt"], result.angles_deg[:, 1])
    # No two copies of a particle have the same pose.
    traces = np.einsum("iab,jab->ij", wanted[:order], wanted[:order])
    assert (traces[~np.eye(order, dtype=bool)] < 3 - 1e-3).all()
    with ImageReader(table) as one, ImageReader(result) as other:
        np.testing.assert_array_equal(one.read(origin), other.read(np.arange(3 * order)))


def test_smears_are_turned_with_their_particle(tmp_path: Path) -> None:
    table, operators = _table(tmp_path), point_group("D2")
    draw = np.random.default_rng(0)
    owner = np.array([0, 0, 1, 2, 2, 2])
    smears = Smears.of_lists(owner, draw.uniform(-90, 90, (6, 3)), draw.normal(size=(6, 2)), draw.random(6) + 0.1)
    result = expand_symmetry(replace(table, smears=smears, image_scale=np.array([1.0, 2.0, 3.0])), operators)
    assert result.smears is not None
    assert result.image_scale is not None
    np.testing.assert_array_equal(result.image_scale, np.repeat([1.0, 2.0, 3.0], 4))
    for copy in range(12):
        own, made = smears.rows([copy // 4]), result.smears.rows([copy])
        np.testing.assert_array_equal(made.weight, own.weight)
        np.testing.assert_array_equal(made.shifts_px, own.shifts_px)
        wanted = relion_matrices(own.angles_deg) @ operators[copy % 4]
        np.testing.assert_allclose(relion_matrices(made.angles_deg), wanted, atol=1e-9)


def test_all_copies_share_their_half(tmp_path: Path) -> None:
    operators = point_group("C3")
    given = expand_symmetry(_table(tmp_path, 6, rlnRandomSubset=[2, 1, 1, 2, 2, 1]), operators)
    np.testing.assert_array_equal(given.random_subset, np.repeat([2, 1, 1, 2, 2, 1], 3))
    for columns in ({}, {"rlnRandomSubset": [1] * 6}, {"rlnRandomSubset": [0] * 6}):
        drawn = expand_symmetry(_table(tmp_path, 6, **columns), operators, seed=5)
        by_particle = drawn.random_subset.reshape(6, 3)
        assert (by_particle == by_particle[:, :1]).all()
        assert sorted(by_particle[:, 0]) == [1, 1, 1, 2, 2, 2]
        np.testing.assert_array_equal(drawn.frame["rlnRandomSubset"], drawn.random_subset)


def test_an_expanded_table_is_written_and_read(tmp_path: Path) -> None:
    result = expand_symmetry(_table(tmp_path, 4), point_group("D2"))
    write_particles(tmp_path / "e.star", result)
    again = read_particles(tmp_path / "e.star")
    np.testing.assert_allclose(again.angles_deg, result.angles_deg, atol=1e-4)
    np.testing.assert_array_equal(again.stack_index, result.stack_index)
    np.testing.assert_array_equal(again.random_subset, result.random_subset)
    np.testing.assert_array_equal(np.asarray(again.frame[EXPANDED_FROM], int), np.repeat(np.arange(4), 4))
    with pytest.raises(InputError, match=r"e\.star has been expanded already"):
        expand_symmetry(again, point_group("C2"))


def test_what_is_no_rotation_is_refused(tmp_path: Path) -> None:
    table = _table(tmp_path)
    for wrong, message in (
        (np.eye(3), "shape"),
        (np.zeros((0, 3, 3)), "shape"),
        (2 * np.eye(3)[None], "proper"),
        (-np.eye(3)[None], "proper"),
    ):
        with pytest.raises(ValueError, match=message):
            expand_symmetry(table, wrong)


def test_random_halves_are_even_and_go_by_the_image(tmp_path: Path) -> None:
    names = [f"{row % 11 + 1}@p.mrcs" for row in range(22)]
    table = _table(tmp_path, 22, rlnImageName=names)
    half = half_sets(table, np.arange(22), seed=3)
    np.testing.assert_array_equal(half[:11], half[11:])
    assert sorted(np.bincount(half)) == [10, 12]
    mixed = np.random.default_rng(0).permutation(22)
    np.testing.assert_array_equal(half_sets(table.subset(mixed), np.arange(22), seed=3), half[mixed])
    assert (half_sets(table, np.arange(22), seed=4) != half).any()
    # Only the rows that are used count, and only they get one.
    some = half_sets(table, np.array([5, 2, 9]), seed=3)
    assert sorted(some[[2, 5, 9]].tolist()) in ([0, 0, 1], [0, 1, 1])
    assert (np.delete(some, [2, 5, 9]) == -1).all()


def test_given_halves_are_kept_where_both_are_there(tmp_path: Path) -> None:
    table = _table(tmp_path, 6, rlnRandomSubset=[1, 2, 2, 0, 1, 2])
    half = half_sets(table, np.arange(6), seed=0)
    np.testing.assert_array_equal(half[[0, 1, 2, 4, 5]], [0, 1, 1, 0, 1])
    assert half[3] in (0, 1)
    one_sided = half_sets(table, np.array([1, 2, 5]), seed=0)
    assert set(one_sided[[1, 2, 5]].tolist()) == {0, 1}
