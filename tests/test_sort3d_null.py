"""Sets of one state carry the consensus, the asked-for errors and the data's noise; p-values are honest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import kstest
from sort3d_cases import exact_sections, on_ranks
from sort3d_runs import simulate_small

from hpcsort.kernels import extract_sections
from hpcsort.parallel import Communicator, SerialComm
from hpcsort.sort3d.null import null_distribution, simulate_null, solve_by_survey
from hpcsort.sort3d.options import SortOptions
from hpcsort.sort3d.problem import Problem, pose_problem
from hpcsort.sort3d.source import read_source
from hpcsort.sort3d.support import NullLevels, carried_over, null_lines, stable_sets, supported, write_null
from hpcsort.volumes import BandGrid, fsc_of_full

_EXACT = np.zeros(7)
_POSES_ARE_GOOD = np.array([0.02, *[0.03] * 3, *[0.005] * 3])


def _pose(star: Path, comm: Communicator, **more: object) -> Problem:
    given = {"max_groups": 3, "components": 4, "quiet": True} | more
    options = SortOptions(instack=star, output_dir=star.parent / "out", **given)  # type: ignore[arg-type]
    return pose_problem(read_source(options, comm), comm, lambda text: None)


@pytest.fixture(scope="module")
def star(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_small(tmp_path_factory.mktemp("null") / "one", 420, states=1).star


@pytest.fixture(scope="module")
def problem(star: Path) -> Problem:
    return _pose(star, SerialComm())


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> Callable[..., np.ndarray]:
    """The simulated images themselves, in place of the problem that is prepared from them."""
    monkeypatch.setattr(Problem, "with_images", lambda self, made: made)
    return simulate_null  # type: ignore[return-value]


def _one_state(problem: Problem) -> np.ndarray:
    """Map of the state that should be seen: the consensus with the power of its signal, by its own way."""
    consensus = problem.consensus
    share = np.maximum(fsc_of_full(consensus.fsc), 0.25)
    spectrum = consensus.grid.to_fourier(consensus.map, corrected=False)
    curve = np.concatenate([share[1:2], share[1:]])
    return consensus.grid.to_real(
        (spectrum / np.sqrt(consensus.grid.shell_fill(curve))).astype(np.complex64), corrected=False
    )


def test_the_mean_image_is_the_consensus_and_the_rest_has_the_data_s_amplitudes(
    problem: Problem, images: Callable[..., np.ndarray]
) -> None:
    data, sets = problem.wide.store.data, 50
    mean = np.mean([images(problem, number, _EXACT) for number in range(sets)], axis=0)
    expected = data.ctfs * exact_sections(_one_state(problem), data.rotations, data.radius)
    amplitude = np.abs(data.images)
    # Random phases average out as 1 / sets, whatever the amplitude; the section is read with a small error.
    left = (np.abs(mean - expected) ** 2).sum() * sets / (amplitude**2).sum()
    wrong_section = 1e-3 * (np.abs(expected) ** 2).sum() * sets / (amplitude**2).sum()
    assert 0.97 < left < 1.03 + wrong_section
    assert (np.abs(mean - expected) ** 2).sum() < 0.1 * (np.abs(expected) ** 2).sum()
    one = images(problem, 3, _EXACT)
    noise = one - expected
    assert np.corrcoef(np.abs(noise).ravel(), amplitude.ravel())[0, 1] > 0.99
    # No phase is left of the data's noise.
    assert abs((noise * data.images.conj()).mean()) < 5 / np.sqrt(noise.size)


def test_whitened_residuals_of_a_null_set_are_noise_of_variance_one(problem: Problem) -> None:
    for spread in (_EXACT, _POSES_ARE_GOOD):
        made = simulate_null(problem, 0, spread)
        residual = made.wide.store.data
        assert (np.abs(residual.images) ** 2).mean() == pytest.approx(1.0, abs=0.01)
        assert abs((residual.images**2).mean()) < 0.02
        for shell in range(1, residual.radius + 1):
            assert (np.abs(residual.images[:, residual.shell == shell]) ** 2).mean() == pytest.approx(1.0, abs=0.05)
        # What the sort is to see as signal is still there.
        assert made.consensus.fsc[1:4].min() > 0.9
        assert made.narrow.grid == problem.narrow.grid
        assert made.wide.grid == problem.wide.grid


def test_sets_differ_and_each_comes_back(problem: Problem, images: Callable[..., np.ndarray]) -> None:
    first, again, second = (images(problem, number, _POSES_ARE_GOOD) for number in (0, 0, 1))
    assert (first == again).all()
    assert np.abs(first - second).min() > 0


def test_contrast_and_shift_err_as_asked(problem: Problem, images: Callable[..., np.ndarray]) -> None:
    data = problem.wide.store.data
    exact = images(problem, 0, _EXACT)
    signal = data.ctfs * exact_sections(_one_state(problem), data.rotations, data.radius)
    power = (np.abs(signal) ** 2).sum(axis=1)

    contrast = images(problem, 0, np.array([0.2, *[0.0] * 6])) - exact
    drawn = (contrast * signal.conj()).sum(axis=1).real / power
    assert drawn.std() == pytest.approx(0.2, rel=0.1)
    assert np.abs(contrast - drawn[:, None] * signal).max() < 0.05 * np.abs(signal).max()

    shift_px, box = 0.1, problem.table.box_px
    assert box is not None
    shifted = images(problem, 0, np.array([0.0, *[shift_px] * 3, *[0.0] * 3])) - exact
    # For small shifts the phase is linear in frequency.
    for axis in (data.px, data.py):
        slope = -2j * np.pi / box * axis * signal
        other = -2j * np.pi / box * (data.py if axis is data.px else data.px) * signal
        system = np.array([[(slope.conj() * slope).sum(1), (slope.conj() * other).sum(1)],
                           [(other.conj() * slope).sum(1), (other.conj() * other).sum(1)]]).real  # fmt: skip
        right = np.array([(slope.conj() * shifted).sum(1), (other.conj() * shifted).sum(1)]).real
        found = np.linalg.solve(system.transpose(2, 0, 1), right.T[..., None])[:, 0, 0]
        assert found.std() == pytest.approx(shift_px, rel=0.12)


def test_rotations_err_as_asked(problem: Problem, images: Callable[..., np.ndarray]) -> None:
    data, turn = problem.wide.store.data, 0.01
    moved = images(problem, 0, np.array([*[0.0] * 4, *[turn] * 3])) - images(problem, 0, _EXACT)
    # Exact sections a little off about each axis of the view.
    state = _one_state(problem)
    exact = exact_sections(state, data.rotations, data.radius)
    expected = 0.0
    for axis in np.eye(3):
        off = Rotation.from_rotvec(turn * axis).as_matrix() @ data.rotations
        expected += float((np.abs(data.ctfs * (exact_sections(state, off, data.radius) - exact)) ** 2).sum())
    assert (np.abs(moved) ** 2).sum() == pytest.approx(expected, rel=0.15)


def test_images_without_a_particle_stay_without(problem: Problem, images: Callable[..., np.ndarray]) -> None:
    empty = np.zeros(problem.count)
    empty[5:50] = 1.0
    made = images(replace(problem, empty=empty), 0, _POSES_ARE_GOOD)
    data, consensus = problem.wide.store.data, problem.consensus
    seen = data.images + data.ctfs * extract_sections(
        consensus.volume, data.rotations, data.px, data.py, consensus.grid.pad
    )
    np.testing.assert_allclose(np.abs(made[5:50]), np.abs(seen[5:50]), atol=1e-4)
    assert (np.abs(made[50:]) - np.abs(seen[50:])).std() > 0.1


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_null_sets_do_not_depend_on_the_ranks(star: Path, problem: Problem, ranks: int) -> None:
    def work(comm: Communicator) -> tuple[np.ndarray, np.ndarray]:
        made = simulate_null(_pose(star, comm), 2, _POSES_ARE_GOOD)
        return made.wide.store.gathered(made.wide.store.data.images), made.narrow.fixed

    alone = simulate_null(problem, 2, _POSES_ARE_GOOD)
    for residual, fixed in on_ranks(ranks, work):
        assert (residual == alone.wide.store.data.images).all()
        assert (fixed == alone.narrow.fixed).all()


def test_the_data_s_own_images_give_the_data_s_residuals(problem: Problem) -> None:
    data, consensus = problem.wide.store.data, problem.consensus
    grid = consensus.grid
    seen = data.images + data.ctfs * extract_sections(consensus.volume, data.rotations, data.px, data.py, grid.pad)
    again = problem.with_images(seen.astype(np.complex64))
    own, new = data.images.ravel(), again.wide.store.data.images.ravel()
    assert abs(np.vdot(own, new)) / np.linalg.norm(own) / np.linalg.norm(new) > 0.99
    np.testing.assert_allclose(again.narrow.power[1:-1], problem.narrow.power[1:-1], rtol=0.1)
    assert again.rows is problem.rows


def test_more_than_one_state_is_found_and_one_is_not(star: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    made = simulate_small(tmp_path_factory.mktemp("null") / "two", 300, states=2).star
    two, one = (_pose(path, SerialComm(), components=2) for path in (made, star))
    sets = 2
    for posed, there in ((two, True), (one, False)):
        gain, scores = solve_by_survey(posed, 2)
        levels = null_distribution(posed, sets, 2, solve_by_survey, _POSES_ARE_GOOD)
        support = supported(levels, gain, scores)
        assert (support.existence == 1 / (sets + 1)) == there
        if there:
            assert gain > levels.gains.max() + 0.1
            assert (support.p == 1 / (sets + 1)).all()


def test_scores_of_stable_sets_know_chance() -> None:
    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [500, 300, 200])
    for other in (labels, (labels + 1) % 3):
        sets, scores = stable_sets(labels, other)
        np.testing.assert_allclose(scores, 1.0)
        assert (sets == labels).all()
    sets, scores = stable_sets(np.array([0, 0, 0, 1, 1, -1]), np.array([1, 1, 0, 0, 0, 0]))
    # By hand: overlaps 2 and 2 of sizes 3, 2 and 2, 4; expected overlaps 1 and 8/6.
    np.testing.assert_allclose(scores, [(2 / 3 - 1 / 4) / (3 / 4), (2 / 4 - 2 / 7) / (5 / 7)])
    assert sets.tolist() == [0, 0, -1, 1, 1, -1]
    assert stable_sets(np.zeros(50, int), np.zeros(50, int))[1].tolist() == [0.0]
    assert stable_sets(np.full(50, -1), np.zeros(50, int))[1].size == 0
    assert stable_sets(np.zeros(0, int), np.zeros(0, int))[1].size == 0
    # A class that swallows nearly all is no more reproducible than any other random one.
    lopsided = [np.where(draw.permutation(1000) < 980, 0, 1) for _ in range(2)]
    assert np.abs(stable_sets(*lopsided)[1]).max() < 0.1
    random = [stable_sets(labels, draw.permutation(labels))[1][0] for _ in range(200)]
    assert abs(np.mean(random)) < 0.05


def test_groups_of_a_sort_take_the_support_of_their_stable_sets() -> None:
    levels = NullLevels(2, np.zeros(19), np.full(19, 0.5))
    support = supported(levels, 1.0, np.array([0.9, 0.1]))
    sets = np.array([0, 0, 0, 1, 1, -1, -1])
    groups = np.array([1, 1, 0, 0, 0, 2, -1])
    carried = carried_over(support, sets, groups, 4)
    assert carried.supported.tolist() == [False, True, False, False]
    assert carried.p.tolist() == [1.0, 0.05, 1.0, 1.0]
    assert carried.reproducibility.tolist() == [0.1, 0.9, 0.0, 0.0]
    assert carried.existence == support.existence


@pytest.mark.parametrize("sets", [19, 39])
def test_p_values_of_exchangeable_figures_are_uniform(sets: int) -> None:
    draw = np.random.default_rng(sets)
    ps = []
    for _ in range(1500):
        figures = draw.normal(size=sets + 1)
        levels = NullLevels(2, figures[1:], figures[1:])
        support = supported(levels, float(figures[0]), figures[:1])
        assert support.p[0] == support.existence
        # Spread within its step, so that a continuous test applies.
        ps.append(support.existence - draw.random() / (sets + 1))
    assert kstest(ps, "uniform").pvalue > 0.01


def test_ties_count_against_the_data() -> None:
    support = supported(NullLevels(2, np.zeros(19), np.ones(19)), 0.0, np.array([1.0, 0.5]))
    assert support.existence == 1.0
    assert support.p.tolist() == [1.0, 1.0]
    assert support.number == 0


def test_false_groups_are_rarely_supported() -> None:
    draw, found = np.random.default_rng(1), 0
    for _ in range(1000):
        groups = draw.normal(size=(20, 4))
        levels = NullLevels(4, draw.normal(size=19), groups[1:].max(axis=1))
        # The gate of existence is left open: the groups must hold by themselves.
        found += supported(levels, 10.0, groups[0]).number > 0
    assert found / 1000 < 0.07


def test_groups_count_only_where_more_than_one_state_exists() -> None:
    levels = NullLevels(3, np.linspace(0, 1, 19), np.full(19, 0.2))
    scores = np.array([0.9, 0.8, 0.1])
    there, absent = supported(levels, 2.0, scores), supported(levels, 0.5, scores)
    assert there.supported.tolist() == [True, True, False]
    assert there.p.tolist() == [0.05, 0.05, 1.0]
    assert absent.number == 0
    assert supported(levels, 2.0, np.zeros(0)).number == 0
    # Too few sets cannot support anything.
    assert supported(NullLevels(2, np.zeros(9), np.zeros(9)), 1.0, np.ones(2)).number == 0


def test_the_null_is_written_and_told(tmp_path: Path) -> None:
    levels = NullLevels(2, np.array([0.1, 0.2]), np.array([0.3, 0.4]))
    support = supported(levels, 1.0, np.array([0.9, 0.1]))
    summary = write_null(tmp_path, levels, support)
    rows = [line.split(",") for line in (tmp_path / "null.csv").read_text().splitlines()]
    assert rows == [
        ["set", "gain", "largest_reproducibility"], ["data", "1.0", "0.9"], ["0", "0.1", "0.3"], ["1", "0.2", "0.4"]
    ]  # fmt: skip
    assert summary["existence_p"] == pytest.approx(1 / 3)
    assert summary["supported_groups"] == 0
    told = "\n".join(null_lines(levels, support))
    assert "2 simulated sets of one state" in told
    assert "--null 19" in told
    assert "not supported" not in told
    more = NullLevels(2, np.linspace(0.1, 0.2, 19), np.linspace(0.3, 0.4, 19))
    told = "\n".join(null_lines(more, supported(more, 1.0, np.array([0.9, 0.1]))))
    assert "more than one state (p = 0.05)" in told
    assert "1 of 2 groups are supported" in told
    assert "group 1 is not supported" in told
    assert "--null" not in told


def test_the_finer_volume_is_the_map_s_own(problem: Problem) -> None:
    consensus = problem.consensus
    grid = BandGrid(consensus.grid.size, consensus.grid.radius, 2)
    data = problem.wide.store.data
    read = extract_sections(grid.to_fourier(consensus.map), data.rotations, data.px, data.py, grid.pad)
    exact = exact_sections(consensus.map, data.rotations, data.radius)
    sorted_by = extract_sections(consensus.volume, data.rotations, data.px, data.py, consensus.grid.pad)
    assert np.abs(read - exact).max() < 0.05 * np.abs(exact).max()
    # The sort's own sections err more, and so do its residuals of a null set.
    assert np.linalg.norm(read - exact) < 0.5 * np.linalg.norm(sorted_by - exact)
