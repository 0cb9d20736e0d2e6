from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from click.testing import CliRunner

from hpcsort.cli.simulate import command
from hpcsort.errors import OptionError, OutputError
from hpcsort.geometry import relion_matrices
from hpcsort.optics import ctf
from hpcsort.simulation import SimulationOptions, SimulationResult, simulate

_SMALL: dict[str, Any] = {"particles": 12, "states": 2, "box_px": 14, "pixel_size_A": 20.0}


def _simulate(out: Path, **options: Any) -> SimulationResult:
    return simulate(SimulationOptions(out=out, **(_SMALL | options)))


def _images(result: SimulationResult) -> np.ndarray:
    return np.asarray(mrcfile.read(result.stack), dtype=np.float64)


def _exact_projection(volume: np.ndarray, row: pd.Series, optics: pd.Series, truth: pd.Series) -> np.ndarray:
    """Direct Fourier sum over all voxels and pixels of the disc, nothing taken from the simulator."""
    box = len(volume)
    radius = (box - 1) // 2
    ky, kx = np.indices((box, box)) - box // 2
    disc = kx**2 + ky**2 <= radius**2
    px, py = kx[disc], ky[disc]
    matrix = relion_matrices([[truth.rot, truth.tilt, truth.psi]])[0]
    z, y, x = np.indices(volume.shape).reshape(3, -1) - box // 2
    k = np.outer(px, matrix[0]) + np.outer(py, matrix[1])
    section = np.exp(-2j * np.pi / box * (k @ np.stack([x, y, z]))) @ volume.reshape(-1)
    section *= ctf(
        px,
        py,
        box,
        optics.rlnImagePixelSize,
        row.rlnDefocusU,
        row.rlnDefocusV,
        row.rlnDefocusAngle,
        optics.rlnVoltage,
        optics.rlnSphericalAberration,
        optics.rlnAmplitudeContrast,
    )[0]
    iy, ix = np.indices((box, box)).reshape(2, -1) - box // 2
    # the content lies at minus the origin
    phase = np.outer(iy + truth.oy_px, py) + np.outer(ix + truth.ox_px, px)
    return (np.exp(2j * np.pi / box * phase) @ section).real.reshape(box, box) / box**2


@pytest.mark.parametrize("box", [14, 15])
def test_noise_free_images_are_projections_of_the_written_maps(tmp_path: Path, box: int) -> None:
    result = _simulate(tmp_path / "sim", box_px=box, noise="none", angle_error_deg=5, shift_error_px=1)
    tables = starfile.read(result.star)
    truth = pd.read_csv(result.truth)
    maps = [np.asarray(mrcfile.read(path), dtype=np.float64) for path in result.maps]
    for i, image in enumerate(_images(result)):
        volume = maps[int(truth.state[i])]
        expected = _exact_projection(volume, tables["particles"].iloc[i], tables["optics"].iloc[0], truth.iloc[i])
        assert np.linalg.norm(image - expected) < 1e-4 * np.linalg.norm(expected)


def test_written_maps_are_in_the_grey_scale_of_the_images(tmp_path: Path) -> None:
    plain = _simulate(tmp_path / "plain", noise="none", particles=40)
    noisy = _simulate(tmp_path / "noisy", noise="white", snr=0.5, particles=40)
    scale = json.loads((tmp_path / "noisy" / "simulate.json").read_text())["density_scale"]
    for one, other in zip(plain.maps, noisy.maps, strict=True):
        np.testing.assert_allclose(mrcfile.read(other), mrcfile.read(one) * scale, rtol=1e-5)
    noise = _images(noisy) - scale * _images(plain)
    signal = scale * _images(plain)
    assert noise.var() == pytest.approx(1.0, rel=0.05)
    assert signal.var(axis=(1, 2)).mean() / noise.var() == pytest.approx(0.5, rel=0.05)
    assert abs(np.corrcoef(noise.ravel(), signal.ravel())[0, 1]) < 0.05


def test_coloured_noise_falls_with_frequency_and_keeps_the_ratio(tmp_path: Path) -> None:
    result = _simulate(tmp_path / "sim", noise="coloured", snr=1e-6, particles=100, box_px=16)
    images = _images(result)
    assert images.var() == pytest.approx(1.0, rel=0.05)
    power = (np.abs(np.fft.fft2(images)) ** 2).mean(axis=0) / 16**2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(16), np.fft.fftfreq(16)))
    rings = [power[(frequency >= low) & (frequency < low + 0.1)].mean() for low in (0.05, 0.15, 0.25, 0.35)]
    assert rings == sorted(rings, reverse=True)
    assert rings[0] > 2 * rings[-1]


def test_junk_is_noise_or_another_density(tmp_path: Path) -> None:
    result = _simulate(tmp_path / "sim", noise="none", particles=40, junk=0.2)
    images, state = _images(result), pd.read_csv(result.truth).state.to_numpy()
    powers = images.var(axis=(1, 2))
    assert result.junk == (state == -1).sum() == 8
    assert (powers[state == -1] == 0).sum() == 4
    assert (powers[state >= 0] > 0).all()


def test_chunks_do_not_change_a_bit_and_seeds_do(tmp_path: Path) -> None:
    options = {"noise": "coloured", "junk": 0.1, "particles": 21, "preferred": 0.5}
    whole, parts, other = (
        _simulate(tmp_path / name, **options, chunk=chunk, seed=seed)
        for name, chunk, seed in (("whole", 100, 3), ("parts", 2, 3), ("other", 100, 4))
    )
    for name in ("particles.mrcs", "particles.star", "truth.csv", "state_00.mrc", "state_01.mrc", "simulate.json"):
        first = (whole.star.parent / name).read_bytes()
        assert first == (parts.star.parent / name).read_bytes(), name
        if name.startswith("particles"):
            assert first != (other.star.parent / name).read_bytes(), name


def test_table_is_what_relion_reads(tmp_path: Path) -> None:
    result = _simulate(tmp_path / "sim", particles=12, micrographs=3, dtype="float16", shift_sigma_px=1.5)
    tables = starfile.read(result.star)
    particles, truth = tables["particles"], pd.read_csv(result.truth)
    assert list(truth.columns) == ["state", "rot", "tilt", "psi", "ox_px", "oy_px"]
    assert particles.rlnImageName.tolist()[11] == "000012@particles.mrcs"
    assert particles.rlnMicrographName.value_counts().tolist() == [4, 4, 4]
    assert set(particles.rlnRandomSubset) == {1, 2}
    np.testing.assert_allclose(particles.rlnOriginXAngst, truth.ox_px * 20.0, atol=1e-5)
    np.testing.assert_allclose(particles.rlnAngleTilt, truth.tilt, atol=1e-5)
    with mrcfile.open(result.stack) as file:
        assert file.data.dtype == np.float16
        assert file.data.shape == (12, 14, 14)
        assert float(file.voxel_size.x) == pytest.approx(20.0)


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    simulate(SimulationOptions(out=tmp_path / "sim", **_SMALL, chunk=5), lambda done, total: told.append((done, total)))
    assert told == [(5, 12), (10, 12), (12, 12)]


def test_a_folder_with_content_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "sim"
    _simulate(out, states=4)
    before = (out / "particles.mrcs").read_bytes()
    with pytest.raises(OutputError, match="--overwrite"):
        _simulate(out, seed=9)
    assert (out / "particles.mrcs").read_bytes() == before
    result = _simulate(out, seed=9, overwrite=True)
    assert (out / "particles.mrcs").read_bytes() != before
    # no state of the earlier run is left behind
    assert sorted(out.glob("*.mrc")) == list(result.maps)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        _simulate(tmp_path / "file")


def test_command_line_simulates(tmp_path: Path) -> None:
    out = tmp_path / "sim"
    words = [str(out), "--particles", "20", "--sizes", "3,1", "--box", "14", "--angpix", "20", "--defocus-range", "1,2"]
    outcome = CliRunner().invoke(command, words, catch_exceptions=False)
    assert outcome.exit_code == 0
    assert "15 of state 0, 5 of state 1" in outcome.output
    assert starfile.read(out / "particles.star")["particles"].rlnDefocusU.between(9000, 21500).all()


@pytest.mark.parametrize(
    ("words", "message"), [(["--sizes", "3,x"], "--sizes"), (["--defocus-range", "1,2,3"], "2 numbers")]
)
def test_command_line_names_bad_numbers(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        CliRunner().invoke(command, [str(tmp_path / "sim"), *words], catch_exceptions=False)
