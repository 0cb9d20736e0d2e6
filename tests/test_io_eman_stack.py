"""EMAN2 stacks in HDF5: poses and CTF from headers, images, and a sentence for every way to be wrong."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from io_cases import CTF_TEXT, write_eman_stack

from hpcsort.errors import InputError
from hpcsort.geometry import relion_matrices
from hpcsort.io import HdfStack, ImageReader, read_eman_stack, read_particles, write_hdf_map, write_particles

ANGLES = np.array([[10.0, 40, 70], [-20, 0, 15], [100, 180, -60], [30, 90, 0]])


def _images(count: int = 4, shape: tuple[int, int] = (7, 7)) -> np.ndarray:
    return np.random.default_rng(3).normal(1, 2, (count, *shape)).astype(np.float32)


def _poses() -> np.ndarray:
    poses = np.zeros((4, 3, 4))
    poses[:, :, :3] = relion_matrices(ANGLES)
    poses[:, :2, 3] = [[1.5, -2], [0, 0], [0.25, 3], [-1, -1]]
    return poses


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    return write_eman_stack(tmp_path / "s.hdf", _images(), _poses(), [CTF_TEXT] * 4)


def test_headers_become_a_table(stack: Path) -> None:
    table = read_eman_stack(stack)
    assert (len(table), table.box_px, table.pixel_size_A) == (4, 7, 2.0)
    np.testing.assert_allclose(relion_matrices(table.angles_deg), _poses()[:, :, :3], atol=1e-6)
    np.testing.assert_allclose(table.shifts_px, -_poses()[:, :2, 3], atol=1e-12)
    # dfdiff is V - U, dfang 45 degrees minus RELION's angle
    np.testing.assert_allclose([table.defocus_u_A[0], table.defocus_v_A[0]], [16000, 14000])
    np.testing.assert_allclose(table.defocus_angle_deg, 15)
    assert (table.voltage_kV[0], table.cs_mm[0], table.amplitude_contrast[0]) == (300, 2.7, 0.07)
    assert table.micrograph.tolist() == [f"mic_{index}.mrc" for index in range(4)]
    assert table.notes == ()
    with ImageReader(table) as reader:
        np.testing.assert_array_equal(reader.read([3, 0, 3]), _images()[[3, 0, 3]])


def test_astigmatism_is_the_function_that_sphire_draws(tmp_path: Path) -> None:
    text = ["E1.5 -0.2 30 0 7 300 2.7 2 0 0 0", "E1.5 0.2 120 0 7 300 2.7 2 0 0 0"]
    table = read_eman_stack(write_eman_stack(tmp_path / "s.hdf", _images(2), _poses()[:2], text))
    theta = np.linspace(0, np.pi, 25)
    u, v, angle = (x[:, None] for x in (table.defocus_u_A, table.defocus_v_A, np.deg2rad(table.defocus_angle_deg)))
    ours = (u + v) / 2 + (u - v) / 2 * np.cos(2 * (theta - angle))
    for row, (difference, degrees) in enumerate(((-0.2, 30), (0.2, 120))):
        theirs = 1e4 * (1.5 - difference / 2 * np.sin(2 * (theta + np.deg2rad(degrees))))
        np.testing.assert_allclose(ours[row], theirs)
    assert len(table.notes) == 1
    assert "SPHIRE" in table.notes[0]


def test_amplitude_contrast_beyond_its_range_is_a_phase(tmp_path: Path) -> None:
    text = [f"E1.5 0 0 20 {percent} 300 2.7 2 0 0 0" for percent in (7, 100, 150, -50)]
    table = read_eman_stack(write_eman_stack(tmp_path / "s.hdf", _images(), _poses(), text))
    np.testing.assert_allclose(table.amplitude_contrast, [0.07, 1, 0, 0])
    np.testing.assert_allclose(table.phase_shift_deg, [0, 0, 150, -30], atol=1e-10)
    np.testing.assert_array_equal(table.bfactor_A2, 20)
    np.testing.assert_array_equal(table.optics_group, [1, 2, 0, 0])


def test_what_is_written_reads_back(stack: Path, tmp_path: Path) -> None:
    table = read_eman_stack(stack)
    (tmp_path / "job").mkdir()
    write_particles(tmp_path / "job" / "p.star", table, rows=np.array([2, 1]))
    again = read_particles(tmp_path / "job" / "p.star")
    for name in ("angles_deg", "shifts_px", "defocus_u_A", "defocus_angle_deg", "voltage_kV", "pixel_sizes_A"):
        np.testing.assert_allclose(getattr(again, name), getattr(table, name)[[2, 1]], rtol=1e-13, atol=1e-12)
    np.testing.assert_array_equal(ImageReader(again).read([0, 1]), _images()[[2, 1]])


def test_another_pixel_size_keeps_shifts_in_pixels(stack: Path) -> None:
    table = read_eman_stack(stack, angpix=3)
    assert table.pixel_size_A == 3
    np.testing.assert_allclose(table.shifts_px, -_poses()[:, :2, 3], atol=1e-12)
    assert table.notes == ("Pixel size 3 A as given replaces 2 A of column apix.",)


def test_what_is_not_needed_may_be_absent(tmp_path: Path) -> None:
    path = write_eman_stack(tmp_path / "s.hdf", _images())
    table = read_eman_stack(path, need_poses=False, need_ctf=False)
    assert np.isnan(table.angles_deg).all()
    assert np.isnan(table.voltage_kV).all()
    assert table.pixel_size_A == 2.0
    with pytest.raises(InputError, match=r"image 1: it has no header xform\.projection, but an orientation is needed"):
        read_eman_stack(path)
    with pytest.raises(InputError, match=r"image 1: it has no header ctf, but a CTF is needed"):
        read_eman_stack(path, need_poses=False)


# Images


def test_a_stack_reads_as_an_mrc_stack_does(tmp_path: Path) -> None:
    images = _images(3, (7, 9))
    with HdfStack(write_eman_stack(tmp_path / "s.hdf", images)) as stack:
        assert (stack.shape, len(stack), stack.voxel_A) == ((3, 7, 9), 3, 2.0)
        read = stack.read([2, 0, 2])
        np.testing.assert_array_equal(read, images[[2, 0, 2]])
        assert read.dtype == np.float32
        assert stack.read([]).shape == (0, 7, 9)
        stack.close()
        np.testing.assert_array_equal(stack.read([1]), images[[1]])
        for index in (-1, 3):
            with pytest.raises(InputError, match=rf"image {index + 1} does not exist in .*, which holds 1 to 3"):
                stack.read([0, index])


@pytest.mark.parametrize("bits", [5, 12])
def test_images_of_fewer_bits_come_back_scaled(tmp_path: Path, bits: int) -> None:
    images = _images(2)
    read = HdfStack(write_eman_stack(tmp_path / "s.hdf", images, bits=bits)).read([1, 0])
    step = np.ptp(images, axis=(1, 2)).max() / (2**bits - 1)
    np.testing.assert_allclose(read, images[[1, 0]], atol=0.51 * step)
    assert np.abs(read - images[[1, 0]]).max() > 0.1 * step


def test_images_that_cannot_be_read(stack: Path, tmp_path: Path) -> None:
    with h5py.File(stack, "r+") as file:
        del file["MDF/images/1/image"]
        file["MDF/images/1/image"] = np.zeros((7, 8), np.float32)
        del file["MDF/images/2/image"]
        file["MDF/images/2/image"] = np.zeros((2, 7, 7), np.float32)
        del file["MDF/images/3/image"]
    with HdfStack(stack) as images:
        for index, message in (
            (1, r"7 x 7 px in its first image but 8 x 7 in image 2; give images of one size"),
            (2, r"holds a map of 7 x 7 x 2 voxels"),
            (3, r"lacks image 4 \(numbered 3 by EMAN2\)"),
        ):
            with pytest.raises(InputError, match=message):
                images.read([index])
        assert images.read([0]).shape == (1, 7, 7)


def test_a_small_file_cannot_ask_for_much_memory(stack: Path) -> None:
    with h5py.File(stack, "r+") as file:
        del file["MDF/images/0/image"]
        file["MDF/images/0"].create_dataset("image", (10**6, 10**6), np.float32, chunks=(1000, 1000))
        for axis in "xy":
            file["MDF/images/0"].attrs[f"EMAN.n{axis}"] = np.array([10**6])
    with pytest.raises(InputError, match="promises 4000000000000 bytes of voxels but stores 0"):
        HdfStack(stack)


def test_files_that_are_no_stacks(tmp_path: Path) -> None:
    def refused(path: Path, message: str) -> None:
        for read in (HdfStack, read_eman_stack):
            with pytest.raises(InputError, match=message) as error:
                read(path)
            assert str(path) in str(error.value)
            assert "\n" not in str(error.value)

    refused(tmp_path / "absent.hdf", "not a file that can be read")
    (tmp_path / "text.hdf").write_text("data_")
    refused(tmp_path / "text.hdf", "damaged or not an HDF5 stack")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    refused(tmp_path / "other.h5", "has no group /MDF/images")
    with h5py.File(tmp_path / "none.hdf", "w") as file:
        file.create_group("MDF/images")
    refused(tmp_path / "none.hdf", "holds no image")
    write_eman_stack(tmp_path / "few.hdf", _images(2))
    with h5py.File(tmp_path / "few.hdf", "r+") as file:
        file["MDF/images"].attrs["imageid_max"] = np.array([99], np.int32)
    refused(tmp_path / "few.hdf", "says that it holds 100 images but has 2")
    write_hdf_map(tmp_path / "map.hdf", np.ones((7, 7, 7)), 2)
    with pytest.raises(InputError, match="holds a map of 7 x 7 x 7 voxels where images are needed"):
        HdfStack(tmp_path / "map.hdf")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("O1.5 0 0 0 7 300 2.7 2", "not a letter E with the eight numbers"),
        ("E1.5 0 0 0 7 300 2.7", "not a letter E with the eight numbers"),
        ("E1.5 0 0 0 seven 300 2.7 2", "not a letter E with the eight numbers"),
        ("E1.5 0 0 0 7 nan 2.7 2", "not a letter E with the eight numbers"),
        ("E1.5 0 0 0 7 300 2.7 0 0 0", r"row 2, column apix: 0 where a pixel size"),
        ("E1.5 0 0 0 7 0 2.7 2 0 0", r"row 2, column ctf: '0.0' where a voltage in kV is positive"),
    ],
)
def test_ctf_headers_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = write_eman_stack(tmp_path / "s.hdf", _images(2), _poses()[:2], [CTF_TEXT, text])
    with pytest.raises(InputError, match=message) as error:
        read_eman_stack(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("factor", [2.0, -1.0, np.nan])
def test_matrices_that_are_no_rotations(tmp_path: Path, factor: float) -> None:
    poses = _poses()
    poses[2] *= factor
    path = write_eman_stack(tmp_path / "s.hdf", _images(), poses, [CTF_TEXT] * 4)
    with pytest.raises(InputError, match=r"s\.hdf, image 3: its header xform\.projection is no rotation"):
        read_eman_stack(path)


def test_other_headers_that_cannot_be_used(tmp_path: Path) -> None:
    path = write_eman_stack(tmp_path / "s.hdf", _images(), _poses(), [CTF_TEXT] * 4, ctf_applied=np.array([1]))
    with pytest.raises(InputError, match=r"image 1: its CTF is applied already \(header ctf_applied\)"):
        read_eman_stack(path)
    path = write_eman_stack(path, _images(), None, [CTF_TEXT] * 4, **{"xform.projection": np.zeros(12)})
    with pytest.raises(InputError, match=r"image 1: its header xform\.projection is no matrix"):
        read_eman_stack(path)
    with h5py.File(write_eman_stack(path, _images(), _poses(), [CTF_TEXT] * 4), "r+") as file:
        file.move("MDF/images/2", "MDF/images/x")
    with pytest.raises(InputError, match=r"lacks image 3 \(numbered 2 by EMAN2\)"):
        read_eman_stack(path)


def test_the_same_particles_as_star_and_hdf(shared_data: Path) -> None:
    folder = shared_data / "eman_hdf"
    ours, theirs = read_eman_stack(folder / "eman2_stack_48x64.hdf"), read_particles(folder / "same_particles.star")
    np.testing.assert_allclose(relion_matrices(ours.angles_deg), relion_matrices(theirs.angles_deg), atol=1e-6)
    np.testing.assert_allclose(ours.shifts_px, theirs.shifts_px, atol=1e-6)
    # EMAN2 keeps float32 and ten digits
    for name in ("defocus_u_A", "defocus_v_A", "defocus_angle_deg", "voltage_kV", "cs_mm", "amplitude_contrast"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6, err_msg=name)
    assert ours.micrograph.tolist() == theirs.micrograph.tolist()
    assert (ours.pixel_size_A, ours.box_px, ours.notes) == (5.0, 64, ())
    rows = np.arange(48)
    np.testing.assert_array_equal(ImageReader(ours).read(rows), ImageReader(theirs).read(rows))
