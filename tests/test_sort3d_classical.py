"""The classical engine: K-means in map space from random starts, in lock step."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sort3d_cases import (
    SIZE,
    band_data,
    blobs,
    cosine,
    exact_sections,
    make_store,
    noise,
    on_ranks,
    small_grid,
    transfer,
    views,
)

from hpcsort.checkpoints import no_journal
from hpcsort.kernels import extract_sections
from hpcsort.parallel import Communicator, SerialComm
from hpcsort.partitions import adjusted_rand_index, matched_accuracy
from hpcsort.sort3d import SortOptions, classical, lockstep
from hpcsort.sort3d.assignment import group_quota
from hpcsort.sort3d.classical import classical_classes, run_classical_layer
from hpcsort.sort3d.kmeans import iterate_chains, score_chains
from hpcsort.sort3d.lockstep import Chain, Field, clean_residuals
from hpcsort.sort3d.merging import merge_duplicates
from hpcsort.sort3d.problem import Band
from hpcsort.sort3d.records import BoxPlan
from hpcsort.sort3d.refill import refill
from hpcsort.sort3d.subspace import NUISANCES, nuisance_maps
from hpcsort.sort3d.task import Task
from hpcsort.volumes import soft_sphere

_MASK = soft_sphere(small_grid().distance, 0.38, 0.08)
_COUNT = 400


def _options(**more: object) -> SortOptions:
    given = {"instack": Path("x.star"), "output_dir": Path("out"), "seed": 5, "max_groups": 4} | more
    return SortOptions(**given)  # type: ignore[arg-type]


@cache
def _differences() -> np.ndarray:
    """Three differences of structure, real maps inside the mask."""
    axis = np.arange(SIZE) - SIZE // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    places = [(3, -3, 2), (-4, 2, 0), (0, 3, -4)]
    return np.stack(
        [2.5 * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / (2 * 1.8**2)) for a, b, c in places]
    ).astype(np.float32)


def _state(count: int, states: int) -> np.ndarray:
    return np.random.default_rng(11).permutation(count) % states


@cache
def _images(count: int, states: int, strength: float) -> Any:
    rotations, ctfs = views(count, 3), transfer(count, 4)
    sections = np.stack([exact_sections(difference, rotations) for difference in _differences()[:states]])
    state = _state(count, states)
    signal = strength * (sections[state, np.arange(count)] - sections.mean(axis=0))
    return band_data(ctfs * signal + noise(count, 6), ctfs, rotations)


def _fixed() -> np.ndarray:
    grid = small_grid()
    spread = np.array([0.05, *[0.1] * 3, *[0.02] * 3])
    return grid.to_fourier(
        (nuisance_maps(grid, blobs(SIZE, 9), _MASK) * spread[:, None, None, None]).astype(np.float32)
    )


def _problem(comm: Communicator, states: int = 2, strength: float = 1.0, count: int = _COUNT, **more: object) -> Any:
    grid = small_grid()
    store = make_store(_images(count, states, strength), comm)
    orientation = np.random.default_rng(2).integers(0, 3, count)
    return SimpleNamespace(
        journal=no_journal(),
        options=_options(**more),
        comm=comm,
        count=count,
        image=np.arange(count),
        wide=Band(store, grid, _MASK, _MASK, _fixed(), np.full(grid.radius + 2, 10.0)),
        consensus=SimpleNamespace(fsc=1.0 / (1.0 + np.exp((np.arange(grid.radius + 2) - 6) / 1.5))),
        orientation=orientation,
        empty=np.zeros(count),
    )


def _task(problem: Any, known: np.ndarray | None = None) -> Task:
    given = np.full(problem.count, -1) if known is None else known
    return Task(problem, 0, given, (0.1,), lambda note: None)


def _halves(count: int, number: int = 0) -> tuple[np.ndarray, np.ndarray]:
    half = np.random.default_rng(30 + number).permutation(count) % 2 == 0
    return half, ~half


def _field(problem: Any) -> Field:
    band = problem.wide
    store, junk = clean_residuals(band.store, band.fixed, band.grid.pad, 0.05)
    return Field(store, band.grid, _MASK, _MASK, 0.2 * band.power, problem.orientation, np.zeros((len(junk), 0)), junk)


def _chain(count: int, classes: int, seed: int = 0, own: np.ndarray | None = None) -> Chain:
    mine = np.ones(count, bool) if own is None else own
    start = np.random.default_rng(seed).permutation(count) % classes
    return Chain(mine, np.where(mine, start, -1), classes)


def test_two_states_are_found_from_random_starts() -> None:
    problem = _problem(SerialComm())
    (box,) = run_classical_layer(_task(problem), [BoxPlan(0, 0, _halves(_COUNT), 4)])
    for labels, joint in zip(box.labels, box.joints, strict=True):
        assert matched_accuracy(_state(_COUNT, 2), labels) > 0.95
        assert labels.max() == 1
        assert joint.shape == (_COUNT, 2 + 2)
        assert np.isfinite(joint).all()


def test_three_states_with_the_number_of_groups_given() -> None:
    problem = _problem(SerialComm(), states=3, img_per_grp=_COUNT // 3)
    everyone = np.ones(_COUNT, bool)
    (box,) = run_classical_layer(_task(problem), [BoxPlan(0, 0, (everyone, everyone), 3)])
    for labels in box.labels:
        assert matched_accuracy(_state(_COUNT, 3), labels) > 0.9
        assert np.bincount(labels[labels >= 0]).size == 3


def test_particles_of_one_kind_stay_one_class() -> None:
    problem = _problem(SerialComm(), states=1)
    (box,) = run_classical_layer(_task(problem), [BoxPlan(0, 0, _halves(_COUNT), 4)])
    assert all((labels <= 0).all() for labels in box.labels)


def _layer(comm: Communicator, plans: list[BoxPlan], **more: object) -> list[tuple[bytes, ...]]:
    boxes = run_classical_layer(_task(_problem(comm, **more)), plans)  # type: ignore[arg-type]
    return [tuple(part.tobytes() for part in (*box.labels, *box.joints)) for box in boxes]


@pytest.mark.parametrize("ranks", [2, 5])
def test_the_same_bits_on_any_ranks(ranks: int) -> None:
    plans = [BoxPlan(0, number, _halves(260, number), 3) for number in (0, 1)]

    def work(comm: Communicator) -> tuple[tuple[bytes, ...], ...]:
        return tuple(_layer(comm, plans, count=260))

    (alone,) = on_ranks(1, work)
    assert set(on_ranks(ranks, work)) == {alone}


@pytest.mark.parametrize("shared", [False, True])
def test_lock_step_is_every_box_by_itself(shared: bool) -> None:
    everyone = np.ones(260, bool)
    plans = [BoxPlan(0, n, (everyone, everyone) if shared else _halves(260, n), 3) for n in (0, 1)]
    together = _layer(SerialComm(), plans, count=260)
    assert together == [_layer(SerialComm(), [plan], count=260)[0] for plan in plans]
    assert together[0] != together[1]


def test_sums_of_few_chains_at_a_time_are_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = BoxPlan(0, 0, _halves(260), 3)
    whole = _layer(SerialComm(), [plan], count=260)
    monkeypatch.setattr(lockstep, "_MOST_FLOATS", 1)
    assert _layer(SerialComm(), [plan], count=260) == whole


def test_every_class_keeps_its_minimum_in_every_view() -> None:
    problem = _problem(SerialComm(), strength=0.3)
    field, own = _field(problem), _halves(_COUNT)[0]
    chains = [_chain(_COUNT, 4), _chain(_COUNT, 3, own=own)]
    for _ in range(2):
        found = iterate_chains(field, chains, [90, 80])
        for chain, labels in zip(chains, found, strict=True):
            chain.labels = labels
    for chain, least in zip(chains, (90, 80), strict=True):
        assert ((chain.labels >= 0) == chain.own).all()
        for group in range(3):
            mine = chain.own & (problem.orientation == group)
            share = int(least * chain.own.sum() / _COUNT)
            quota = group_quota(share, chain.classes, int(mine.sum()), int(chain.own.sum()))
            assert quota > 5
            assert np.bincount(chain.labels[mine], minlength=chain.classes).min() >= quota


def test_fuzzy_memberships_sum_to_one_and_change_the_maps() -> None:
    field = _field(_problem(SerialComm(), strength=0.4))
    made = {}
    for fuzziness in (0.0, 0.5):
        chain = _chain(_COUNT, 3)
        (chain.labels,) = iterate_chains(field, [chain], [20])
        first = chain.shares
        assert set(np.unique(first)) == {0.0, 1.0}
        chain.fuzziness = fuzziness
        iterate_chains(field, [chain], [20])
        made[fuzziness] = chain
        np.testing.assert_allclose(chain.shares.sum(axis=1), 1.0, rtol=1e-5)
    hard, soft = made[0.0], made[0.5]
    assert set(np.unique(hard.shares)) == {0.0, 1.0}
    assert ((soft.shares > 0).sum(axis=1) > 1).mean() > 0.5
    # A label keeps at least half of its particle.
    assert (soft.shares[np.arange(_COUNT), hard.shares.argmax(axis=1)] > 0.49).all()
    assert hard.maps is not None
    assert soft.maps is not None
    assert cosine(np.abs(hard.maps.volumes), np.abs(soft.maps.volumes)) < 0.999


def test_a_fuzzy_chain_sorts_as_well() -> None:
    problem = _problem(SerialComm())
    object.__setattr__(problem.options, "use_umat", True)
    (box,) = run_classical_layer(_task(problem), [BoxPlan(0, 0, _halves(_COUNT), 3)])
    assert all(matched_accuracy(_state(_COUNT, 2), labels) > 0.95 for labels in box.labels)


def test_without_leave_one_out_noise_keeps_its_random_classes() -> None:
    """The bias towards the class that a particle is part of, and that it is gone."""
    kept = {}
    for correct in (False, True):
        field = replace(_field(_problem(SerialComm(), states=1)), leave_one_out=correct, local=False)
        chain = _chain(_COUNT, 2)
        start = chain.labels
        (labels,) = iterate_chains(field, [chain], [0])
        kept[correct] = (labels == start).mean()
    assert kept[False] > 0.75
    assert 0.35 < kept[True] < 0.6


def test_a_chain_learns_from_its_own_particles_only() -> None:
    own = _halves(_COUNT)[0]
    problem = _problem(SerialComm())
    volumes = []
    for spoilt in (False, True):
        field = _field(problem)
        if spoilt:
            images = field.store.data.images.copy()
            images[~own] = images[~own][::-1]
            field = replace(field, store=field.store.with_data(field.store.data.with_images(images)))
        chain = _chain(_COUNT, 2, own=own)
        iterate_chains(field, [chain], [20])
        assert chain.maps is not None
        volumes.append(chain.maps.volumes)
        scores = score_chains(field, [chain])[0]
        assert scores.shape == (_COUNT, 2)
        assert (scores[~own] != 0).all()
    np.testing.assert_array_equal(volumes[0], volumes[1])


@pytest.mark.parametrize("halves", [True, False])
def test_a_parted_group_is_joined_and_true_groups_are_not(halves: bool) -> None:
    field, state = _field(_problem(SerialComm())), _state(_COUNT, 2)
    own = _halves(_COUNT)[0] if halves else np.ones(_COUNT, bool)
    # The second state is parted at random.
    parted = np.where(state == 1, 1 + np.random.default_rng(0).integers(0, 2, _COUNT), 0)
    chain = Chain(own, np.where(own, parted, -1), 3)
    iterate_chains(field, [chain], [0])
    (scores,) = merge_duplicates(field, [chain], score_chains(field, [chain]))
    assert chain.classes == 2
    assert scores.shape == (_COUNT, 2)
    assert chain.maps is not None
    assert len(chain.maps.volumes) == len(chain.scale) == 2
    assert (scores.argmax(axis=1) == state).mean() > 0.95


def test_known_groups_keep_their_particles() -> None:
    state = _state(_COUNT, 3)
    # Half of the first state is known; the rest of it belongs to that group and is not sorted again.
    known = np.where((state == 0) & (np.arange(_COUNT) % 2 == 0), 0, -1)
    task = _task(_problem(SerialComm(), states=3), known)
    active = task.active
    (box,) = run_classical_layer(task, [BoxPlan(0, 0, _halves(_COUNT), 3)])
    left = state[active]
    for labels, joint in zip(box.labels, box.joints, strict=True):
        assert joint.shape[1] == 1 + labels.max() + 1 + 2
        assert (labels[left == 0] == -1).mean() > 0.9
        assert matched_accuracy(left[left > 0] - 1, labels[left > 0]) > 0.9
        assert (joint[left == 0].argmax(axis=1) == 0).mean() > 0.9


def test_a_start_partition_is_taken_up_and_may_leave_particles_out() -> None:
    state = _state(_COUNT, 2)
    start = np.where(np.random.default_rng(1).random(_COUNT) < 0.3, -1, state)
    (box,) = run_classical_layer(
        _task(_problem(SerialComm())), [BoxPlan(1, 0, _halves(_COUNT), 2, (start, start))]
    )  # fmt: skip
    for labels in box.labels:
        assert (labels == state).mean() > 0.95


def test_images_without_a_particle_teach_nothing() -> None:
    problem = _problem(SerialComm())
    problem.empty[:100] = 1.0
    seen = []

    def spy(field: Field, chains: list[Chain], minimum: list[int]) -> list[np.ndarray]:
        seen.extend(chain.own[:100].any() for chain in chains)
        return iterate_chains(field, chains, minimum)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classical, "iterate_chains", spy)
        run_classical_layer(_task(problem), [BoxPlan(0, 0, _halves(_COUNT), 2)])
    assert seen
    assert not any(seen)


def test_the_first_number_of_classes() -> None:
    assert classical_classes(_options(max_groups=10), 6000, 60) == 10
    assert classical_classes(_options(max_groups=10), 200, 30) == 6
    assert classical_classes(_options(max_groups=1), 200, 30) == 2
    assert classical_classes(_options(img_per_grp=1000), 6100, 60) == 6
    assert classical_classes(_options(img_per_grp=10), 6100, 60) == 29
    assert classical_classes(_options(img_per_grp=5000), 6100, 60) == 2


@pytest.mark.parametrize("classes", [3, 5])
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_a_refilled_partition_keeps_the_stable_sets_and_is_even(classes: int, share: float) -> None:
    stable = np.repeat([0, 1, 2, -1], [250, 200, 150, 400])
    labels = refill(stable, classes, share, np.random.default_rng(0))
    assert labels.min() == 0
    assert labels.max() == classes - 1
    kept = [(labels[stable == index] == index).mean() for index in range(3)]
    assert min(kept) >= 1.0 - share - 0.01
    if share:
        assert max(kept) < 1.0
    sizes = np.bincount(labels)
    assert sizes.max() / sizes.min() < 1.8
    again = refill(stable, classes, share, np.random.default_rng(1))
    assert 0.0 < adjusted_rand_index(labels, again) < 1.0


def test_refilling_edge_cases() -> None:
    draw = np.random.default_rng
    # No stable set: an even random partition.
    assert np.bincount(refill(np.full(10, -1), 3, 0.1, draw(0))).tolist() == [4, 3, 3]
    # Nothing left over: members are exchanged among the sets.
    whole = np.repeat([0, 1], 50)
    swapped = refill(whole, 2, 0.1, draw(0))
    assert np.bincount(swapped).tolist() == [50, 50]
    assert (swapped != whole).any()
    assert refill(np.zeros(0, np.int64), 2, 0.1, draw(0)).shape == (0,)
    # Sets that leave too few particles for the other classes are trimmed.
    trimmed = refill(np.zeros(90, np.int64), 3, 0.0, draw(0))
    assert np.bincount(trimmed).min() >= 15


def test_cleaning_takes_the_expected_nuisances_out() -> None:
    band = _problem(SerialComm(), count=20).wide
    store = band.store
    cleaned, junk = clean_residuals(store, band.fixed, 1, 0.05)
    data = store.data
    for i in range(3):
        rotation = data.rotations[i : i + 1]
        maps = np.stack([data.ctfs[i] * extract_sections(v, rotation, data.px, data.py, 1.0)[0] for v in band.fixed])
        real = np.concatenate([maps.real, maps.imag], axis=1).astype(np.float64)
        image = np.concatenate([data.images[i].real, data.images[i].imag]).astype(np.float64)
        # Noise of variance 1/2 in each real number: half the image times the inverse covariance.
        expected = 0.5 * np.linalg.solve(0.5 * np.eye(len(image)) + real.T @ real, image)
        found = cleaned.data.images[i]
        np.testing.assert_allclose(np.concatenate([found.real, found.imag]), expected, atol=2e-4)
    assert real.shape[0] == NUISANCES
    assert junk.shape == (20, 2)
