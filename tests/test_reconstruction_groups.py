"""Maps of groups: the known map comes back, from exactly the listed particles, with the same bits on any ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mpi_helpers import find_mpiexec, run_mpi
from reconstruction_cases import IDENTITY, PIXEL_A, density, write_particles_of

from hpcsort.errors import InputError, OutputError
from hpcsort.geometry import point_group
from hpcsort.io import ImageReader, ParticleTable, read_map, read_particles, write_stack
from hpcsort.parallel import SerialComm
from hpcsort.reconstruction import GroupMaps, insertion, reconstruct_groups, write_group_maps
from hpcsort.volumes import BandGrid, map_fsc, soft_sphere


def _reconstruct(table: ParticleTable, groups: list[np.ndarray], **options: object) -> list[GroupMaps]:
    given = {"half": np.arange(len(table)) % 2, "radius_px": 8, "mask": None, "symmetry": IDENTITY} | options
    maps = reconstruct_groups(SerialComm(), table, groups, **given)  # type: ignore[arg-type]
    assert maps is not None
    return maps


@pytest.mark.parametrize("box", [24, 23])
def test_a_known_map_comes_back_in_its_own_units(tmp_path: Path, box: int) -> None:
    truth = 20.0 * density(box, 7, seed=1)
    table = read_particles(write_particles_of(tmp_path, [truth], np.zeros(400, np.int64)))
    (maps,) = _reconstruct(table, [np.arange(400)])
    assert maps.size == 400
    assert maps.fsc.shape == (box // 2 + 1,)
    # CTFs carry some of so strong a signal out of the radius, where it counts as noise.
    axis = np.arange(box) - box // 2
    outside = axis[:, None] ** 2 + axis**2 > 8**2
    with ImageReader(table) as reader:
        noise = reader.read(np.arange(400))[:, outside].std(axis=1) / 3.0
    truth *= (1 / noise).mean()
    inside = BandGrid(box, box // 2 - 1).distance < 8 / box
    low = int(0.8 * box / 2)
    band = np.fft.fftfreq(box, 1 / box) ** 2
    kept = band[:, None, None] + band[:, None] + band <= low**2
    smooth = np.fft.ifftn(np.fft.fftn(truth) * kept).real
    for volume in (maps.map, maps.half1, maps.half2):
        assert volume.dtype == np.float32
        slope = np.polyfit(smooth[inside], np.fft.ifftn(np.fft.fftn(volume) * kept).real[inside], 1)[0]
        assert slope == pytest.approx(1.0, abs=0.03)
        assert map_fsc(truth * inside, volume * inside)[1 : low + 1].min() > 0.99
    assert maps.resolution_A == pytest.approx(2 * PIXEL_A, rel=0.15)


def test_each_group_has_its_own_particles_in_any_order(tmp_path: Path) -> None:
    states = [20.0 * density(16, 5, seed=seed) for seed in (1, 2)]
    state = np.arange(160) // 2 % 2
    table = read_particles(write_particles_of(tmp_path, states, state))
    rows = [np.flatnonzero(state == which) for which in (0, 1)]
    draw = np.random.default_rng(0)
    first = _reconstruct(table, rows, radius_px=6)
    again = _reconstruct(table, [draw.permutation(rows[1]), draw.permutation(rows[0])], radius_px=6)
    for own, other, maps, same in zip(states, states[::-1], first, again[::-1], strict=True):
        right, wrong = (map_fsc(maps.map, volume)[1:6].mean() for volume in (own, other))
        assert right > 0.97
        assert right > wrong + 0.3
        assert maps.map.tobytes() == same.map.tobytes()
        assert maps.size == 80
    subset = _reconstruct(table.subset(rows[0]), [np.arange(80)], radius_px=6)[0]
    assert subset.half2.tobytes() == first[0].half2.tobytes()


def test_symmetry_makes_a_symmetric_map_from_few_particles(tmp_path: Path) -> None:
    operators = point_group("C4")
    truth = 20.0 * density(16, 5, seed=4, operators=operators) / 2
    table = read_particles(write_particles_of(tmp_path, [truth], np.zeros(30, np.int64)))
    plain, symmetric = (
        _reconstruct(table, [np.arange(30)], radius_px=6, symmetry=group)[0] for group in (IDENTITY, operators)
    )
    # A quarter turn about z; the centre of an even box is a voxel, so that plane 0 has no partner.
    core = symmetric.map[:, 1:, 1:]
    np.testing.assert_allclose(np.rot90(core, axes=(1, 2)), core, atol=1e-3 * np.abs(core).max())
    fits = [map_fsc(maps.map, truth)[1:7].mean() for maps in (plain, symmetric)]
    assert fits[1] > fits[0] + 0.01
    assert fits[1] > 0.97


@pytest.mark.parametrize("name", ["D7", "O"])
def test_higher_symmetry_gives_the_true_map_from_few_noisy_particles(tmp_path: Path, name: str) -> None:
    operators = point_group(name)
    truth = 8.0 * density(24, 8, seed=4, operators=operators) / np.sqrt(len(operators))
    table = read_particles(write_particles_of(tmp_path, [truth], np.zeros(40, np.int64), noise=60.0))
    plain, symmetric = (
        _reconstruct(table, [np.arange(40)], radius_px=10, symmetry=group)[0] for group in (IDENTITY, operators)
    )
    mask = soft_sphere(BandGrid(24, 11).distance * 24, 10, 2.0)
    fits = [map_fsc(maps.map * mask, truth * mask)[3:10].mean() for maps in (plain, symmetric)]
    assert fits[1] > fits[0] + 0.2
    assert fits[1] > 0.75
    assert symmetric.fsc is not None
    assert plain.fsc is not None
    assert symmetric.fsc[3:10].mean() > plain.fsc[3:10].mean() + 0.2
    # All operators leave the map as it is, not only those about z.
    core = symmetric.map[1:, 1:, 1:]
    np.testing.assert_allclose(core[::-1, ::-1], core, atol=1e-3 * np.abs(core).max())


def test_noise_has_no_resolution_and_is_filtered_away(tmp_path: Path) -> None:
    table = read_particles(write_particles_of(tmp_path, [np.zeros((16,) * 3, np.float32)], np.zeros(100, np.int64)))
    (maps,) = _reconstruct(table, [np.arange(100)], radius_px=6)
    assert np.abs(maps.fsc[1:]).mean() < 0.4
    assert maps.map.std() < 0.5 * maps.half1.std()
    assert maps.resolution_A > 16 * PIXEL_A / 4


def test_the_mask_decides_where_the_fsc_is_measured(tmp_path: Path) -> None:
    truth = 2.0 * density(16, 5, seed=1)
    table = read_particles(write_particles_of(tmp_path, [truth], np.zeros(100, np.int64)))
    distance = BandGrid(16, 7).distance * 16
    whole, sphere, same = (
        _reconstruct(table, [np.arange(100)], radius_px=6, mask=mask)[0]
        for mask in (np.ones((16,) * 3, np.float32), None, soft_sphere(distance, 6, 5.0))
    )
    assert same.fsc.tobytes() == sphere.fsc.tobytes()
    assert sphere.fsc[3:7].mean() > whole.fsc[3:7].mean()
    np.testing.assert_allclose(whole.fsc, map_fsc(whole.half1, whole.half2))
    assert sphere.half1.tobytes() == whole.half1.tobytes()


def test_empty_and_tiny_groups(tmp_path: Path) -> None:
    table = read_particles(write_particles_of(tmp_path, [density(16, 5, seed=1)], np.zeros(4, np.int64)))
    empty, one = _reconstruct(table, [np.array([], np.int64), np.array([3])], radius_px=6)
    assert (empty.size, one.size) == (0, 1)
    assert not empty.map.any()
    assert empty.resolution_A == np.inf
    assert not one.half1.any()
    assert one.half2.any()
    assert np.isfinite(one.map).all()
    assert _reconstruct(table, [], radius_px=6) == []


def test_rounds_and_repeats_do_not_change_a_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = read_particles(write_particles_of(tmp_path, [20.0 * density(16, 5, seed=1)], np.zeros(60, np.int64)))
    groups = [np.arange(0, 40), np.arange(20, 60), np.arange(0, 60, 3)]
    expected = _reconstruct(table, groups, radius_px=6)
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(insertion, "_BUDGET_BYTES", 1)
    small = _reconstruct(table, groups, radius_px=6, progress=lambda done, total: told.append((done, total)))
    assert [maps.map.tobytes() for maps in small] == [maps.map.tobytes() for maps in expected]
    assert told == [(20, 100), (40, 100), (60, 100), (80, 100), (90, 100), (100, 100)]
    # Far too small an expectation of grey values is found out and mended.
    monkeypatch.setattr(insertion, "_EXPECTED_RMS", 1e-6)
    for maps, wanted in zip(_reconstruct(table, groups, radius_px=6), expected, strict=True):
        np.testing.assert_allclose(maps.map, wanted.map, atol=1e-5 * np.abs(wanted.map).max())


def test_images_without_noise_or_with_nan_are_named(tmp_path: Path) -> None:
    star = write_particles_of(tmp_path, [density(16, 5, seed=1)], np.zeros(3, np.int64))
    table = read_particles(star)
    images = np.random.default_rng(0).normal(size=(3, 16, 16)).astype(np.float32)
    images[1] *= BandGrid(16, 7).distance[8] * 16 < 6
    write_stack(tmp_path / "p.mrcs", images, images.shape, PIXEL_A, overwrite=True)
    with pytest.raises(InputError, match=r"p\.star, row 2: the image is constant outside the radius of 6 px"):
        _reconstruct(table, [np.arange(3)], radius_px=6)
    images[1] = np.nan
    write_stack(tmp_path / "p.mrcs", images, images.shape, PIXEL_A, overwrite=True)
    with pytest.raises(InputError, match=r"image 2 of .*p\.mrcs \(STAR row 2\) has 256 NaN"):
        _reconstruct(table, [np.arange(3)], radius_px=6)


def test_wrong_listings_are_refused(tmp_path: Path) -> None:
    table = read_particles(write_particles_of(tmp_path, [density(16, 5, seed=1)], np.zeros(3, np.int64)))
    with pytest.raises(ValueError, match="row 2 is listed twice"):
        _reconstruct(table, [np.array([2, 0, 2])], radius_px=6)
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        _reconstruct(table, [np.array([2, 0])], half=np.array([0, 1, -1]), radius_px=6)


def test_maps_are_written_whole(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    volumes = draw.normal(size=(3, 7, 7, 7)).astype(np.float32)
    maps = GroupMaps(*volumes, fsc=np.array([1.0, 0.9, 0.5, 0.1]), resolution_A=7.0, size=9)
    write_group_maps(tmp_path, "g1", maps, 2.0)
    for name, volume in zip(("g1", "g1_half1", "g1_half2"), volumes, strict=True):
        data, voxel = read_map(tmp_path / f"{name}.mrc")
        np.testing.assert_array_equal(data, volume)
        assert voxel == 2.0
    text = (tmp_path / "g1_fsc.txt").read_text()
    assert text.startswith("# shell resolution_A fsc\n")
    table = np.loadtxt(tmp_path / "g1_fsc.txt")
    np.testing.assert_allclose(table, [[0, np.inf, 1], [1, 14, 0.9], [2, 7, 0.5], [3, 14 / 3, 0.1]], rtol=1e-4)
    with pytest.raises(OutputError, match="exists already"):
        write_group_maps(tmp_path, "g1", maps, 2.0)
    write_group_maps(tmp_path, "g1", maps, 2.0, overwrite=True)


_RANKS = """
import hashlib, sys
from dataclasses import replace
import numpy as np
from hpcsort.io import Smears, read_particles
from hpcsort.parallel import get_comm
from hpcsort.reconstruction import reconstruct_groups
comm = get_comm()
table = read_particles(sys.argv[1])
draw = np.random.default_rng(0)
owner = np.repeat(np.arange(len(table)), draw.integers(1, 9, len(table)))
angles, shifts = draw.uniform(-180, 180, (len(owner), 3)), draw.normal(size=(len(owner), 2))
smears = Smears.of_lists(owner, angles, shifts, draw.random(len(owner)) + 0.1)
groups = [np.arange(0, len(table), 2), np.arange(1, len(table), 2)]
half = np.arange(len(table)) // 2 % 2
for posed in (table, replace(table, smears=smears)):
    maps = reconstruct_groups(comm, posed, groups, half=half, radius_px=6, mask=None, symmetry=np.eye(3)[None])
    assert (maps is None) == (comm.rank > 0)
    if comm.is_root:
        parts = [part for one in maps for part in (one.map, one.half1, one.half2, one.fsc)]
        print(comm.size, hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
comm.close()
"""


@pytest.mark.mpi
def test_the_bits_do_not_depend_on_the_ranks(tmp_path: Path) -> None:
    find_mpiexec()
    star = write_particles_of(tmp_path, [20.0 * density(17, 5, seed=1)], np.zeros(150, np.int64))
    told = []
    for ranks in (1, 2, 3):
        done = run_mpi(ranks, "-c", _RANKS, str(star))
        assert done.returncode == 0, done.stderr
        told.append(done.stdout.split())
    assert [sizes[::2] for sizes in told] == [["1", "1"], ["2", "2"], ["3", "3"]]
    plain, smeared = ({digests[place] for digests in told} for place in (1, 3))
    assert len(plain) == len(smeared) == 1
    assert plain != smeared


def test_without_halves_there_is_one_map_of_all(tmp_path: Path) -> None:
    truth = 20.0 * density(16, 5, seed=1)
    table = read_particles(write_particles_of(tmp_path, [truth], np.zeros(120, np.int64)))
    first, second = _reconstruct(table, [np.arange(0, 60), np.arange(60, 120)], radius_px=6, half=None)
    assert (first.half1, first.half2, first.fsc) == (None, None, None)
    assert np.isnan(first.resolution_A)
    assert (first.size, second.size) == (60, 60)
    # The particles of a group alone are the half of a group of both.
    half = np.repeat([0, 1], 60)
    (both,) = _reconstruct(table, [np.arange(120)], radius_px=6, half=half)
    assert both.half1 is not None
    assert both.half1.tobytes() == first.map.tobytes()
    write_group_maps(tmp_path, "one", first, PIXEL_A)
    assert sorted(path.name for path in tmp_path.glob("one*")) == ["one.mrc"]
