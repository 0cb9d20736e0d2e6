"""Signs and conventions, judged by images: those of a phantom, and those that EMAN2 wrote itself."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from meridien_writer import random_case, write_refinement

from hpcsort.geometry import relion_matrices
from hpcsort.io import ImageReader, ParticleTable, Smears, read_map
from hpcsort.optics import ctf
from hpcsort.refinement import read_refinement
from hpcsort.simulation import SectionMaker, half_plane, image_from_half_plane

Floats = npt.NDArray[np.float64]


def phantom(box: int) -> Floats:
    """Three blobs off the centre: no symmetry, no mirror plane."""
    z, y, x = np.meshgrid(*[np.arange(box) - box // 2] * 3, indexing="ij")
    blobs = (((4, 1, 0), 1.0), ((-2, 3, 2), 2.0), ((0, -4, -3), 1.5))
    return sum(w * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 4) for (a, b, c), w in blobs)


def agreement(table: ParticleTable, maker: SectionMaker, angles: Floats, shifts: Floats, radius: int) -> float:
    """Correlation of centred images with projections (times CTF) of a map of any box but of the same pixel size."""
    box = table.box_px
    assert box is not None
    px, py = half_plane(box)
    inside = (px**2 + py**2 <= radius**2) & (px**2 + py**2 > 0)
    px, py = px[inside], py[inside]
    images = ImageReader(table).read(np.arange(len(table)))
    data = np.fft.rfft2(np.fft.ifftshift(images, axes=(1, 2)))[:, py, px]
    data *= np.exp(-2j * np.pi * (np.outer(shifts[:, 0], px) + np.outer(shifts[:, 1], py)) / box)
    scale = maker.box_px / box
    views = np.array([maker.section(matrix, px * scale, py * scale) for matrix in relion_matrices(angles)])
    views = views * transfer(table, px, py)
    return float(np.vdot(views, data).real / np.linalg.norm(views) / np.linalg.norm(data))


def transfer(table: ParticleTable, px: npt.ArrayLike, py: npt.ArrayLike) -> npt.NDArray[np.float32]:
    assert table.box_px is not None
    optics = (table.voltage_kV, table.cs_mm, table.amplitude_contrast)
    defocus = (table.defocus_u_A, table.defocus_v_A, table.defocus_angle_deg)
    return ctf(px, py, table.box_px, table.pixel_sizes_A, *defocus, *optics)


def smeared_images(smears: Smears, maker: SectionMaker, contrast: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Mean of the moved views of each particle, times its CTF."""
    px, py = half_plane(maker.box_px)
    means = np.zeros(contrast.shape, np.complex128)
    for owner, matrix, (x, y), weight in zip(
        smears.owner, relion_matrices(smears.angles_deg), smears.shifts_px, smears.weight, strict=True
    ):
        means[owner] += weight * maker.section(matrix, px, py) * np.exp(2j * np.pi * (px * x + py * y) / maker.box_px)
    return np.array([image_from_half_plane(mean, px, py, maker.box_px) for mean in means * contrast])


@pytest.mark.parametrize("stack", ["hdf", "mrcs"])
def test_smears_are_the_views_of_their_images(tmp_path: Path, stack: str) -> None:
    case = random_case(8, box=24, most=2)
    maker = SectionMaker(phantom(24))
    px, py = half_plane(24)
    case.images = smeared_images(
        case.smears, maker, ctf(px, py, 24, 3.0, *(case.ctf[name] for name in ("u", "v", "angle")), 300.0, 2.7, 0.1)
    )
    write_refinement(tmp_path / "refine", case, stack=stack)
    table = read_refinement(tmp_path / "refine").table
    assert table.smears is not None
    images = ImageReader(table).read(np.arange(len(table)))
    made = smeared_images(table.smears, maker, transfer(table, px, py))
    np.testing.assert_allclose(made, images, atol=1e-4 * np.abs(images).max())
    alone = table.subset(np.flatnonzero(case.smears.counts == 1))
    assert agreement(alone, maker, alone.angles_deg, alone.shifts_px, 9) > 0.9999
    assert agreement(alone, maker, alone.angles_deg, -alone.shifts_px, 9) < 0.8
    assert agreement(alone, maker, alone.angles_deg * [1, 1, -1], alone.shifts_px, 9) < 0.8


def test_poses_that_eman2_wrote(shared_data: Path, tmp_path: Path) -> None:
    """SPARX's parameters are EMAN2's spider angles and the negative translation; images decide on the signs."""
    path = shared_data / "eman_hdf" / "eman2_stack_48x64.hdf"
    matrices = np.array([np.reshape(list(header[0]), (3, 4)) for header in headers(path)], np.float64)
    phi = np.rad2deg(np.arctan2(matrices[:, 2, 1], matrices[:, 2, 0]))
    theta = np.rad2deg(np.arccos(np.clip(matrices[:, 2, 2], -1, 1)))
    psi = np.rad2deg(np.arctan2(matrices[:, 1, 2], -matrices[:, 0, 2]))
    sx, sy = -matrices[:, 0, 3], -matrices[:, 1, 3]
    write_by_hand(tmp_path / "refine", path, np.column_stack([phi, theta, psi, sx, sy]))
    table = read_refinement(tmp_path / "refine", apply_noise=False).table
    density, _ = read_map(shared_data / "maps" / "ribosome70S_65px_5A.mrc")
    maker = SectionMaker(density)
    right = agreement(table, maker, table.angles_deg, table.shifts_px, 12)
    assert right > 0.45
    for angles, shifts in (
        (table.angles_deg, -table.shifts_px),
        (table.angles_deg, table.shifts_px[:, ::-1]),
        (table.angles_deg, 0 * table.shifts_px),
        (table.angles_deg[:, ::-1] * [-1, -1, -1], table.shifts_px),
        (table.angles_deg * [-1, 1, -1], table.shifts_px),
    ):
        assert agreement(table, maker, angles, shifts, 12) < 0.6 * right


def headers(path: Path) -> list[npt.NDArray[np.void]]:
    with h5py.File(path, "r") as file:
        images = file["MDF/images"]
        return [images[str(place)].attrs["EMAN.xform.projection"] for place in range(len(images))]


def write_by_hand(folder: Path, stack: Path, parameters: Floats) -> None:
    """Write one smear for each particle, with lists of directions and shifts in which each has its own row."""
    n = len(parameters)
    for iteration in (0, 1, 2):
        (folder / f"main{iteration:03d}").mkdir(parents=True)
    previous = parameters[:, 3:] + np.tile([[0.7, -0.3], [-1.2, 0.4]], (n // 2, 1))
    moves = parameters[:, 3:] - np.rint(previous)
    texts = {
        "main000/indexes_000.txt": np.arange(n)[:, None],
        "main000/chunk_0_000.txt": np.arange(0, n, 2)[:, None],
        "main000/chunk_1_000.txt": np.arange(1, n, 2)[:, None],
        "main001/params_001.txt": np.column_stack([parameters[:, :3], previous, np.ones((n, 3))]),
        "main002/params_002.txt": np.column_stack([parameters, np.ones((n, 3))]),
        "main002/driver_002.txt": np.linspace(1, 0, 33)[:, None],
        "main002/refang.txt": parameters[:, :3] - [0, 0, 30.0],
        "main002/rshifts.txt": moves,
    }
    for name, values in texts.items():
        np.savetxt(folder / name, values, "%.9g")
    constants = {"stack": str(stack), "best": 2, "radius": 28, "nnxo": 64, "pixel_size": 5.0, "symmetry": "c1"}
    tracker = {"constants": constants, "delta": 15.0, "nxinit": 64, "avgvaradj": [1.0, 1.0]}
    (folder / "main002" / "Tracker_002.json").write_text(json.dumps(tracker))
    (folder / "main002" / "oldparamstructure").mkdir()
    for half in range(2):
        records = [
            [place, [0, 0], [[row * 100000000 + 2 * 1000 + row, 1.0]]] for place, row in enumerate(range(half, n, 2))
        ]
        path = folder / "main002" / "oldparamstructure" / f"oldparamstructure_{half}_000_002.json"
        path.write_text(json.dumps(records))
