"""Maps from inputs of every kind: smear tables, EMAN2, cryoSPARC, MERIDIEN; and from other programs' images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from meridien_writer import random_case, write_refinement
from reconstruction_cases import PIXEL_A, density, write_particles_of
from scipy.spatial.transform import Rotation

from hpcsort.cli.reconstruct import command
from hpcsort.errors import OptionError
from hpcsort.geometry import relion_matrices
from hpcsort.io import Smears, read_map, read_particles, write_particles, write_smears
from hpcsort.parallel import SerialComm
from hpcsort.reconstruction import ReconstructOptions, Source, reconstruct
from hpcsort.refinement import read_refinement
from hpcsort.volumes import last_shell_above, map_fsc, sphere_mask


def _call(*words: object) -> str:
    done = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def _same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def test_a_refinement_is_reconstructed_with_all_that_it_knows(tmp_path: Path) -> None:
    folder = tmp_path / "refinement"
    write_refinement(folder, random_case(n=24, box=16))
    words = ["--output", tmp_path / "m"]
    told = _call(folder, *words)
    found = read_refinement(folder)
    assert f"symmetry {found.symmetry}, radius {min(found.radius_px, 6)} px" in told
    assert "poses each on average" in told
    assert "Halves (of the table)" in told
    _call("--refinement-dir", folder, "--output", tmp_path / "same")
    assert _same(tmp_path / "m.mrc", tmp_path / "same.mrc")
    # Every part of what is known takes part.
    for number, option in enumerate(("--best-pose", "--notapplybckgnoise", "--sym=c3", "--radius=4")):
        _call(folder, "--output", tmp_path / f"o{number}", option)
        assert not _same(tmp_path / "m_half1.mrc", tmp_path / f"o{number}_half1.mrc"), option
    table = replace(found.table, smears=None)
    options = ReconstructOptions(output=tmp_path / "t", quiet=True)
    reconstruct(options, lambda: Source(table, found.symmetry, found.radius_px), SerialComm())
    assert _same(tmp_path / "t.mrc", tmp_path / "o0.mrc")


def test_options_of_other_inputs_are_refused(tmp_path: Path) -> None:
    for words, message in (
        ((tmp_path / "p.star", "--niter-for-sorting", 3), "--niter-for-sorting 3 belongs to a refinement"),
        ((tmp_path, "--angpix", 3), "--angpix 3 is known of a refinement"),
        ((), "give either the particles or --refinement-dir"),
    ):
        with pytest.raises(OptionError, match=message):
            _call(*words, "--output", tmp_path / "m")


def test_a_smear_table_beside_the_star_file_is_used(tmp_path: Path) -> None:
    star = write_particles_of(tmp_path, [20.0 * density(16, 5, seed=1)], np.zeros(40, np.int64))
    table = read_particles(star)
    draw = np.random.default_rng(0)
    owner = np.repeat(np.arange(40), 3)
    angles = table.angles_deg[owner] + np.tile([[0], [4], [-4]], (40, 3))
    shifts = table.shifts_px[owner] + draw.normal(0, 0.3, (120, 2))
    smears = Smears.of_lists(owner, angles, shifts, np.tile([0.6, 0.3, 0.1], 40))
    table = replace(table, smears=smears)
    write_smears(tmp_path / "s_smears.h5", smears, table.frame["rlnImageName"].tolist())
    write_particles(tmp_path / "s.star", table, smear_table="s_smears.h5")
    told = _call(tmp_path / "s.star", "--output", tmp_path / "m", "--radius", 6)
    assert "3.0 poses each" in told
    reconstruct(ReconstructOptions(output=tmp_path / "k", radius=6, quiet=True), lambda: Source(table), SerialComm())
    first, second = (read_map(tmp_path / f"{name}_half1.mrc")[0] for name in "mk")
    np.testing.assert_allclose(first, second, atol=1e-4 * np.abs(second).max())
    assert "poses each" not in _call(tmp_path / "s.star", "--output", tmp_path / "b", "--radius", 6, "--best-pose")
    _call(star, "--output", tmp_path / "p", "--radius", 6)
    assert not _same(tmp_path / "m.mrc", tmp_path / "p.mrc")


@pytest.mark.parametrize(("name", "limit"), [("ora_noctf", 25), ("ora_ctf", 25)])
def test_the_map_comes_back_from_projections_of_relion(
    shared_data: Path, tmp_path: Path, name: str, limit: int
) -> None:
    folder = shared_data / "relion_oracle"
    table, (truth, _) = read_particles(folder / f"{name}.star"), read_map(folder / "map.mrc")
    if name == "ora_noctf":
        none = np.zeros(len(table))
        table = replace(table, defocus_u_A=none, defocus_v_A=none, cs_mm=none, amplitude_contrast=none + 1)
    options = ReconstructOptions(output=tmp_path / "m", quiet=True, pad=1)
    result = reconstruct(options, lambda: Source(table), SerialComm())
    assert result is not None
    mask = sphere_mask(64, (0, 0, 0), 30, 5)
    curve = map_fsc(result.maps.map * mask, truth * mask)
    assert last_shell_above(curve, 0.5) >= limit
    # 24 sections fill Fourier space to about shell 10.
    assert curve[1:9].mean() > 0.94


def _distance(one: Path, other: Path) -> float:
    first, second = (read_map(path)[0] for path in (one, other))
    return float(np.sqrt(((first - second) ** 2).sum() / (second**2).sum()))


def test_stacks_of_eman2_and_their_star_file_make_the_same_map(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "eman_hdf"
    for name in ("eman2_stack_48x64.hdf", "same_particles.star"):
        told = _call(folder / name, "--output", tmp_path / name[:4], "--pad", 1, "--no-halves")
        assert "48 of 48 particles" in told
    assert _distance(tmp_path / "eman.mrc", tmp_path / "same.mrc") < 1e-3


def test_a_cs_file_and_its_star_file_make_the_same_map(tmp_path: Path) -> None:
    star = write_particles_of(tmp_path, [20.0 * density(16, 5, seed=1)], np.zeros(30, np.int64))
    table = read_particles(star)
    fields = {
        "uid": np.arange(30, dtype=np.uint64),
        "blob/path": np.full(30, b"p.mrcs"),
        "blob/idx": np.arange(30, dtype=np.uint32),
        "blob/shape": np.full((30, 2), 16, np.uint32),
        "blob/psize_A": np.full(30, PIXEL_A, np.float32),
        "alignments3D/pose": Rotation.from_matrix(relion_matrices(table.angles_deg)).inv().as_rotvec(),
        "alignments3D/shift": table.shifts_px,
        "alignments3D/psize_A": np.full(30, PIXEL_A, np.float32),
        "alignments3D/split": np.arange(30, dtype=np.uint32) % 2,
        "ctf/df1_A": table.defocus_u_A,
        "ctf/df2_A": table.defocus_v_A,
        "ctf/df_angle_rad": np.deg2rad(table.defocus_angle_deg),
        "ctf/phase_shift_rad": np.zeros(30),
        "ctf/accel_kv": table.voltage_kV,
        "ctf/cs_mm": table.cs_mm,
        "ctf/amp_contrast": table.amplitude_contrast,
    }
    rows = np.zeros(30, [(name, values.dtype, values.shape[1:]) for name, values in fields.items()])
    for name, values in fields.items():
        rows[name] = values
    with (tmp_path / "p.cs").open("wb") as file:
        np.save(file, rows)
    for name in ("p.star", "p.cs"):
        _call(tmp_path / name, "--output", tmp_path / name[2:], "--radius", 6, "--no-halves")
    assert _distance(tmp_path / "cs.mrc", tmp_path / "star.mrc") < 1e-4
    told = _call(tmp_path / "p.cs", "--output", tmp_path / "h", "--radius", 6)
    assert "Halves (of the table): 15 and 15" in told
