"""MRC files of every mode, byte order and header flaw against mrcfile; written files against mrcfile's validator."""

from __future__ import annotations

import io
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mrcfile.dtypes import HEADER_DTYPE

from hpcsort.errors import InputError, OutputError
from hpcsort.io import MrcStack, read_map, write_map, write_stack


def _values(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    rng = np.random.default_rng(1)
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    return rng.normal(size=shape).astype(dtype)


def _raw(path: Path, data: np.ndarray, mode: int, order: str = "<", extended: int = 0, **fields: object) -> None:
    """Write an MRC file byte by byte, as other programs might."""
    header = np.zeros((), dtype=HEADER_DTYPE.newbyteorder(order))
    header["nz"], header["ny"], header["nx"] = data.shape
    header["mz"], header["my"], header["mx"] = data.shape
    header["mode"], header["nsymbt"] = mode, extended
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["cella"]["x"], header["cella"]["y"], header["cella"]["z"] = (2.5 * n for n in data.shape[::-1])
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.tobytes() + b"x" * extended + data.astype(data.dtype.newbyteorder(order)).tobytes())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("mode", "dtype"), [(0, np.int8), (1, np.int16), (2, np.float32), (6, np.uint16), (12, np.float16)]
)
@pytest.mark.parametrize("extended", [0, 5])
def test_every_real_mode_in_both_byte_orders_without_machine_stamp(
    tmp_path: Path, mode: int, dtype: type, order: str, extended: int
) -> None:
    data = _values((3, 7, 9), dtype)
    _raw(tmp_path / "a.mrcs", data, mode, order, extended)
    with MrcStack(tmp_path / "a.mrcs") as stack:
        assert stack.shape == (3, 7, 9)
        assert len(stack) == 3
        assert stack.voxel_A == 2.5
        out = stack.read([2, 0, 2])
    assert out.dtype == np.float32
    assert out.dtype.isnative
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(out, data[[2, 0, 2]].astype(np.float32))


def test_wrong_machine_stamp_does_no_harm(tmp_path: Path) -> None:
    data = _values((2, 8, 8), np.int8)
    _raw(tmp_path / "a.mrcs", data, 0, "<", machst=np.frombuffer(b"\x11\x11\0\0", dtype=np.uint8))
    np.testing.assert_array_equal(MrcStack(tmp_path / "a.mrcs").read([1]), data[1:].astype(np.float32))


def test_bytes_are_unsigned_where_imod_says_so(tmp_path: Path) -> None:
    data = _values((2, 3, 5), np.int8)
    for flags, expected in ((0, data.view(np.uint8)), (1, data)):
        path = tmp_path / f"{flags}.mrc"
        _raw(path, data, 0)
        raw = bytearray(path.read_bytes())
        raw[152:160] = np.array([1146047817, flags], dtype="<i4").tobytes()
        path.write_bytes(raw)
        np.testing.assert_array_equal(MrcStack(path).read([0, 1]), expected.astype(np.float32))


@pytest.mark.parametrize("nx", [4, 5])
def test_four_bit_rows_start_in_a_new_byte(tmp_path: Path, nx: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 16, (2, 3, nx), dtype=np.uint8)
    padded = np.concatenate([pixels, np.zeros((2, 3, nx % 2), dtype=np.uint8)], axis=2)
    packed = padded[..., 0::2] | padded[..., 1::2] << 4
    _raw(tmp_path / "a.mrcs", packed, 101, nx=nx, mx=nx)
    stack = MrcStack(tmp_path / "a.mrcs")
    assert stack.shape == (2, 3, nx)
    np.testing.assert_array_equal(stack.read([1, 0]), pixels[[1, 0]].astype(np.float32))


def test_single_image_is_a_stack_of_one_and_no_indices_give_no_images(tmp_path: Path) -> None:
    data = _values((8, 7), np.float32)
    with mrcfile.new(tmp_path / "a.mrc", data) as mrc:
        mrc.voxel_size = 1.5
    stack = MrcStack(tmp_path / "a.mrc")
    assert stack.shape == (1, 8, 7)
    np.testing.assert_array_equal(stack.read([0])[0], data)
    assert stack.read([]).shape == (0, 8, 7)


def test_reading_after_close_opens_again(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.mrcs", np.ones((2, 3, 3)), (2, 3, 3), 1.0)
    stack = MrcStack(tmp_path / "a.mrcs")
    stack.close()
    assert stack.read([1]).sum() == 9
    stack.close()
    stack.close()


@pytest.mark.parametrize("index", [-1, 3])
def test_section_outside_is_refused(tmp_path: Path, index: int) -> None:
    write_stack(tmp_path / "a.mrcs", np.ones((3, 2, 2)), (3, 2, 2), 1.0)
    with pytest.raises(InputError, match=rf"image {index + 1} does not exist in .*a\.mrcs, which holds 1 to 3"):
        MrcStack(tmp_path / "a.mrcs").read([0, index])


def test_flawed_files_are_refused_by_name_and_size(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcs"
    with pytest.raises(InputError, match=r"a\.mrcs cannot be read \(no such file"):
        MrcStack(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.mrcs has 0 bytes, less than the 1024"):
        MrcStack(path)
    path.write_bytes(b"\xff" * 5000)
    with pytest.raises(InputError, match=r"a\.mrcs \(5000 bytes\) is not an MRC file"):
        MrcStack(path)
    write_stack(path, np.ones((3, 4, 4)), (3, 4, 4), 1.0, overwrite=True)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"a\.mrcs is truncated.*promises 1216 bytes, found 1215"):
        MrcStack(path)


def test_longer_file_is_accepted(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.mrcs", np.ones((3, 4, 4)), (3, 4, 4), 1.0)
    with (tmp_path / "a.mrcs").open("ab") as file:
        file.write(b"tail")
    assert MrcStack(tmp_path / "a.mrcs").read([2]).sum() == 16


@pytest.mark.parametrize("mode", [3, 4])
def test_complex_modes_are_refused(tmp_path: Path, mode: int) -> None:
    _raw(tmp_path / "a.mrc", np.zeros((1, 4, 16), dtype=np.float32), mode)
    with pytest.raises(InputError, match=rf"complex.*\(mode {mode}\); give real-space"):
        MrcStack(tmp_path / "a.mrc")


def test_map_axes_come_back_as_zyx(tmp_path: Path) -> None:
    zyx = _values((3, 5, 7), np.float32)
    # columns run along z, rows along x, sections along y
    _raw(tmp_path / "a.map", zyx.transpose(1, 2, 0), 2, mapc=3, mapr=1, maps=2, mx=7, my=5, mz=3, cella=(14, 10, 6))
    data, voxel_A = read_map(tmp_path / "a.map")
    np.testing.assert_array_equal(data, zyx)
    assert data.flags.c_contiguous
    assert voxel_A == 2.0


def test_map_with_unequal_voxels_is_refused(tmp_path: Path) -> None:
    _raw(tmp_path / "a.map", np.zeros((2, 2, 2), dtype=np.float32), 2, cella=(2, 2, 4))
    with pytest.raises(InputError, match="voxels of 1, 1, 2 A along x, y, z; resample"):
        read_map(tmp_path / "a.map")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.tuples(*[st.integers(1, 9)] * 3), voxel=st.floats(0.1, 99), seed=st.integers(0, 99))
def test_map_round_trip_and_foreign_reader(
    tmp_path: Path, shape: tuple[int, int, int], voxel: float, seed: int
) -> None:
    volume = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    path = tmp_path / "map.mrc"
    write_map(path, volume, voxel, overwrite=True)
    data, voxel_A = read_map(path)
    np.testing.assert_array_equal(data, volume)
    assert voxel_A == pytest.approx(voxel, rel=1e-6)
    with mrcfile.open(path) as mrc:
        assert mrc.is_volume()
        np.testing.assert_array_equal(mrc.data, volume)
    report = io.StringIO()
    assert mrcfile.validate(path, print_file=report), report.getvalue()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_stack_round_trip_and_foreign_reader(tmp_path: Path, dtype: type) -> None:
    images = _values((5, 8, 8), dtype)
    path = tmp_path / "a.mrcs"
    write_stack(path, (image.astype(np.float64) for image in images), (5, 8, 8), 1.37, dtype)
    stack = MrcStack(path)
    assert stack.voxel_A == pytest.approx(1.37, rel=1e-6)
    assert stack.dtype == dtype
    np.testing.assert_array_equal(stack.read(range(5)), images.astype(np.float32))
    with mrcfile.open(path) as mrc:
        assert mrc.is_image_stack()
        assert mrc.data.dtype == dtype
        assert mrc.header.rms == pytest.approx(images.astype(float).std(), rel=1e-5)
        assert mrc.header.dmean == pytest.approx(images.astype(float).mean(), rel=1e-5)
        assert (mrc.header.dmin, mrc.header.dmax) == (images.min(), images.max())
    report = io.StringIO()
    assert mrcfile.validate(path, print_file=report), report.getvalue()


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    volume = _values((3, 4, 5), np.float32)
    write_map(tmp_path / "a.mrc", volume, 1.0)
    write_map(tmp_path / "b.mrc", volume[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1], 1.0)
    assert (tmp_path / "a.mrc").read_bytes() == (tmp_path / "b.mrc").read_bytes()


def test_writing_refuses_what_would_be_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcs"
    with pytest.raises(ValueError, match="only 1 were given"):
        write_stack(path, np.ones((1, 2, 2)), (2, 2, 2), 1.0)
    with pytest.raises(ValueError, match="section 3"):
        write_stack(path, np.ones((3, 2, 2)), (2, 2, 2), 1.0)
    with pytest.raises(ValueError, match=r"section 1 has \(2, 3\)"):
        write_stack(path, np.ones((2, 2, 3)), (2, 2, 2), 1.0)
    with pytest.raises(ValueError, match="at least one image"):
        write_stack(path, [], (0, 2, 2), 1.0)
    with pytest.raises(ValueError, match="float32 or float16"):
        write_stack(path, np.ones((1, 2, 2)), (1, 2, 2), 1.0, np.int16)
    with pytest.raises(OutputError, match=r"section 1 of .*a\.mrcs has values beyond 65504"):
        write_stack(path, np.full((1, 2, 2), 7e4), (1, 2, 2), 1.0, np.float16)
    with pytest.raises(ValueError, match="three axes"):
        write_map(path, np.ones((2, 2)), 1.0)
    assert not list(tmp_path.iterdir())
    write_map(path, np.ones((2, 2, 2)), 1.0)
    with pytest.raises(OutputError, match="exists already"):
        write_map(path, np.ones((2, 2, 2)), 1.0)


def test_reference_files_agree_with_mrcfile(shared_data: Path) -> None:
    names = ["maps/EMD-3197.map", "relion_oracle/ora_ctf.mrcs", "eman_hdf/particles.mrcs", "formats/smallStack.mrcs"]
    for name in names:
        with mrcfile.mmap(shared_data / name) as mrc:
            expected = np.array(mrc.data[[0, len(mrc.data) - 1]], dtype=np.float32)
            voxel = float(mrc.voxel_size.x)
        stack = MrcStack(shared_data / name)
        np.testing.assert_array_equal(stack.read([0, len(stack) - 1]), expected)
        assert stack.voxel_A == pytest.approx(voxel, rel=1e-6)


def test_reference_files_with_flaws(shared_data: Path) -> None:
    data, voxel_A = read_map(shared_data / "maps/ribosome70S_65px_5A.mrc")
    assert data.shape == (65, 65, 65)
    assert voxel_A == 0
    assert np.isfinite(data).all()
    assert MrcStack(shared_data / "dev5/particles.mrcs").dtype == np.float16
    assert MrcStack(shared_data / "formats/50S-vol.mrc").shape == (128, 32, 32)
    with pytest.raises(InputError, match=r"Corrupted\.stk is truncated or not MRC.*found 2048"):
        MrcStack(shared_data / "formats/smallVolumeStackCorrupted.stk")
