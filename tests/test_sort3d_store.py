"""Sums over particles are right, and their bits do not depend on who holds which."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sort3d_cases import band_data, make_store, noise, on_ranks, transfer, views

from hpcsort.images import BandData
from hpcsort.parallel import Communicator, SerialComm
from hpcsort.sort3d.store import Block, ParticleStore, deal_particles, exact_total

_COUNT = 700


@pytest.fixture(scope="module")
def data() -> BandData:
    return band_data(noise(_COUNT, 1), transfer(_COUNT, 2), views(_COUNT, 3))


def _power_of_blocks(store: ParticleStore) -> np.ndarray:
    def fill(block: Block, out: np.ndarray) -> None:
        out += (np.abs(store.data.images[block.local]) ** 2).sum(axis=0) * np.float32(1.0 / 3.0)

    return store.sum_blocks((store.data.px.size,), 100.0 * _COUNT, fill)


def test_sums_over_blocks_are_plain_sums(data: BandData) -> None:
    store = make_store(data)
    assert len(store.chunks) > 3
    plain = (np.abs(data.images.astype(np.complex128)) ** 2).sum(axis=0) / 3
    np.testing.assert_allclose(_power_of_blocks(store), plain, rtol=1e-5)
    values = np.random.default_rng(0).normal(size=(_COUNT, 2, 3))
    np.testing.assert_allclose(store.total(values), values.sum(axis=0), atol=1e-10)
    assert store.total(np.ones(_COUNT)) == _COUNT
    assert store.largest(values) == np.abs(values).max()


@pytest.mark.parametrize("ranks", [2, 3, 5, 9])
def test_bits_do_not_depend_on_the_ranks(data: BandData, ranks: int) -> None:
    values = np.random.default_rng(0).normal(size=(_COUNT, 4)) * 10.0 ** np.arange(-6, 2, 2)

    def work(comm: Communicator) -> tuple[bytes, ...]:
        store = make_store(data, comm)
        own = values[store.positions]
        gathered = store.gathered(own)
        return _power_of_blocks(store).tobytes(), store.total(own).tobytes(), gathered.tobytes()

    (alone,) = on_ranks(1, work)
    assert set(on_ranks(ranks, work)) == {alone}
    assert alone[2] == values.tobytes()


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 3000), ranks=st.integers(1, 40))
def test_chunks_cover_all_particles_and_depend_on_their_number_alone(count: int, ranks: int) -> None:
    many = SerialComm()
    many.size = ranks
    chunks, dealt = deal_particles(count, many)
    assert chunks == deal_particles(count, SerialComm())[0]
    assert [row for start, stop in chunks for row in range(start, stop)] == list(range(count))
    assert [chunk for mine in dealt for chunk in mine] == list(range(len(chunks)))
    assert len(dealt) == ranks


@pytest.mark.parametrize("ranks", [1, 3, 8])
def test_restricted_keeps_order_owners_and_sums(data: BandData, ranks: int) -> None:
    chosen = np.random.default_rng(5).random(_COUNT) < 0.3
    # A whole chunk may lose all its particles.
    chosen[make_store(data).chunks[1][0] : make_store(data).chunks[1][1]] = False
    kept = np.flatnonzero(chosen)

    def work(comm: Communicator) -> tuple[bytes, bytes]:
        store = make_store(data, comm)
        part = store.restricted(chosen)
        assert part.count == len(kept)
        assert part.mine == store.mine
        np.testing.assert_array_equal(part.data.images, data.images[kept[part.positions]])
        np.testing.assert_array_equal(part.gathered(np.arange(len(data))[kept][part.positions]), kept)
        covered = [row for block in part.blocks() for row in range(block.positions.start, block.positions.stop)]
        assert covered == list(range(part.positions.start, part.positions.stop))
        return _power_of_blocks(part).tobytes(), part.total(np.ones(len(part.data))).tobytes()

    told = on_ranks(ranks, work)
    assert len(set(told)) == 1
    assert told[0] == work(SerialComm())
    np.testing.assert_allclose(np.frombuffer(told[0][0]), (np.abs(data.images[chosen]) ** 2).sum(axis=0) / 3, rtol=1e-5)
    assert np.frombuffer(told[0][1])[0] == len(kept)


def test_restricting_twice_is_restricting_once(data: BandData) -> None:
    draw = np.random.default_rng(6)
    first = draw.random(_COUNT) < 0.5
    second = draw.random(first.sum()) < 0.5
    both = np.zeros(_COUNT, bool)
    both[np.flatnonzero(first)[second]] = True
    store = make_store(data)
    twice, once = store.restricted(first).restricted(second), store.restricted(both)
    assert twice.chunks == once.chunks
    np.testing.assert_array_equal(twice.data.images, once.data.images)


def test_empty_sums() -> None:
    assert exact_total(SerialComm(), [], (2,), 0).tolist() == [0.0, 0.0]
    store = make_store(band_data(noise(0, 1), transfer(0, 2), views(1, 3)[:0]))
    assert store.total(np.zeros((0, 3))).tolist() == [0.0] * 3
    assert store.largest(np.zeros((0, 3))) == 0.0


def test_a_failing_rank_ends_the_others() -> None:
    def work(comm: Communicator) -> None:
        if comm.rank == 1:
            raise ArithmeticError("one rank fails")
        comm.allgather(0)

    with pytest.raises(ArithmeticError, match="one rank fails"):
        on_ranks(3, work)
