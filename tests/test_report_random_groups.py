"""Random particles that groups are compared with: as many as in the group, from either half, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpcsort.reconstruction import GroupMaps
from hpcsort.sort3d.random_groups import draw_alike, random_curves, write_random_curves

_HALF = np.arange(400) % 2
_POOL = np.arange(3, 400)


def _groups(*sizes: int) -> list[np.ndarray]:
    rows = np.random.default_rng(0).permutation(_POOL)
    ends = np.cumsum(sizes)
    return [np.sort(rows[end - size : end]) for end, size in zip(ends, sizes, strict=True)]


def test_random_groups_have_the_sizes_and_halves_of_the_groups() -> None:
    members = _groups(40, 150, 81)
    drawn = draw_alike(members, _POOL, _HALF, seed=7)
    assert [groups for _, groups in drawn] == [[1], [2], [0]]
    for rows, (group,) in drawn:
        assert np.isin(rows, _POOL).all()
        assert (np.diff(rows) > 0).all()
        for which in (0, 1):
            assert (_HALF[rows] == which).sum() == (_HALF[members[group]] == which).sum()
        # of the group itself there are no more in it than chance brings
        assert np.isin(rows, members[group]).mean() < 0.6


def test_groups_of_nearly_one_size_share_a_random_one() -> None:
    members = _groups(60, 57, 56, 100)
    assert [groups for _, groups in draw_alike(members, _POOL, _HALF, seed=0)] == [[3], [0, 1], [2]]


def test_the_seed_and_nothing_else_decides() -> None:
    members = _groups(50, 90)
    shuffled = np.random.default_rng(1).permutation(_POOL)
    one, same, other = (
        draw_alike(members, pool, _HALF, seed) for pool, seed in ((_POOL, 1), (shuffled, 1), (_POOL, 2))
    )
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for (a, _), (b, _) in zip(one, other, strict=True))


@pytest.mark.parametrize("sizes", [(), (0, 30)])
def test_no_particles_are_no_fault(sizes: tuple[int, ...]) -> None:
    assert len(draw_alike(_groups(*sizes), _POOL, _HALF, seed=0)) == len(sizes)


def test_curves_go_to_their_groups_and_into_the_file(tmp_path: Path) -> None:
    def reconstruct(groups: list[np.ndarray]) -> list[GroupMaps]:
        ((rows),) = groups
        fsc = np.array([1.0, len(rows) / 1000, 0.0])
        return [GroupMaps(np.zeros((4, 4, 4)), None, None, fsc, 1.0, len(rows))]

    curves = random_curves(_groups(60, 200, 58), _POOL, _HALF, 0, reconstruct)
    assert [curve[1] for curve in curves] == [0.06, 0.2, 0.06]
    write_random_curves(tmp_path, curves, box=4, voxel_A=3.0)
    table = pd.read_csv(tmp_path / "fsc_random.csv")
    assert list(table) == ["shell", "resolution_A", "random_000", "random_001", "random_002"]
    assert table["resolution_A"].tolist() == [np.inf, 12.0, 6.0]
    assert table["random_001"].tolist() == [1.0, 0.2, 0.0]


def test_ranks_that_reconstruct_nothing_have_no_curves(tmp_path: Path) -> None:
    assert random_curves(_groups(60, 20), _POOL, _HALF, 0, lambda groups: None) == []
    write_random_curves(tmp_path, [], box=4, voxel_A=3.0)
    assert not list(tmp_path.iterdir())
