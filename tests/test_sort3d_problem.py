"""What a sort starts from: particles in the order of views, half-sets, whitened residuals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation
from sort3d_runs import BOX, edit_table, simulate_small

from hpcsort.geometry import relion_matrices
from hpcsort.parallel import SerialComm, StoryLog
from hpcsort.sort3d import SortOptions
from hpcsort.sort3d.problem import pose_problem
from hpcsort.sort3d.source import read_source


def test_the_problem_is_posed_in_the_order_of_views(tmp_path: Path) -> None:
    made = simulate_small(tmp_path / "data", 300, noise="coloured")
    options, comm = SortOptions(instack=made.star, output_dir=tmp_path, quiet=True), SerialComm()
    source = read_source(options, comm)
    problem = pose_problem(source, comm, StoryLog(None, comm, True))
    table = source.table
    assert source.mask is None
    assert sorted(problem.rows.tolist()) == list(range(300))
    np.testing.assert_array_equal(problem.half, table.random_subset[problem.rows] - 1)
    assert problem.narrow.grid.radius <= problem.wide.grid.radius <= BOX // 2 - 1
    views = Rotation.from_matrix(relion_matrices(table.angles_deg[problem.rows]))
    steps = (views[1:] * views[:-1].inv()).magnitude()
    axis = views.inv().apply([0, 0, 1])
    # Neighbours look along nearly the same axis, far nearer than particles do by chance.
    assert np.abs((axis[1:] * axis[:-1]).sum(axis=1)).mean() > 0.9
    assert steps.size == 299
    # Residuals are whitened: what is left after the consensus is noise of variance one, state differences apart.
    power = (np.abs(problem.wide.store.data.images) ** 2).mean()
    assert 0.8 < power < 1.3
    assert problem.orientation.shape == (300,)


def test_half_sets_are_drawn_where_the_table_has_none(tmp_path: Path) -> None:
    made = simulate_small(tmp_path / "data", 100)
    edit_table(made, rlnRandomSubset=None)
    options, comm = SortOptions(instack=made.star, output_dir=tmp_path, quiet=True), SerialComm()
    problem = pose_problem(read_source(options, comm), comm, StoryLog(None, comm, True))
    assert np.bincount(problem.half).tolist() == [50, 50]
