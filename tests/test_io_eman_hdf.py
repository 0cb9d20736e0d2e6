"""Maps in EMAN2's HDF5: round trips, kinds of attributes as in files of EMAN2 itself, files that promise too much."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcsort.errors import InputError, OutputError
from hpcsort.io.eman_hdf import read_hdf_map, write_hdf_map


def _map(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(3.0, 2.0, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(7, 8, 9), (13, 13, 13), (1, 1, 1), (1, 5, 4), (8, 8, 8)])
def test_a_map_comes_back(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    data = _map(shape)
    write_hdf_map(tmp_path / "größe.hdf", data, 13.3)
    again, voxel_A = read_hdf_map(tmp_path / "größe.hdf")
    assert again.dtype == np.float32
    assert again.flags.c_contiguous
    np.testing.assert_array_equal(again, data)
    assert voxel_A == 13.3


def test_equal_maps_make_equal_bytes_and_files_are_not_replaced_unasked(tmp_path: Path) -> None:
    data = _map((5, 6, 7)).astype(np.float64)[:, ::-1]
    for name in ("a.hdf", "b.hdf"):
        write_hdf_map(tmp_path / name, data, 2)
    assert (tmp_path / "a.hdf").read_bytes() == (tmp_path / "b.hdf").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write_hdf_map(tmp_path / "a.hdf", -data, 2.0)
    assert (tmp_path / "a.hdf").read_bytes() == (tmp_path / "b.hdf").read_bytes()
    write_hdf_map(tmp_path / "a.hdf", -data, 2.0, overwrite=True)
    np.testing.assert_array_equal(read_hdf_map(tmp_path / "a.hdf")[0], -data.astype(np.float32))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.hdf", "b.hdf"]
    for wrong in (np.zeros((4, 4)), np.zeros((0, 4, 4))):
        with pytest.raises(ValueError, match="three axes"):
            write_hdf_map(tmp_path / "c.hdf", wrong, 1.0)


def test_the_header_says_what_the_voxels_are(tmp_path: Path) -> None:
    data = _map((4, 5, 6))
    data[0] = 0
    write_hdf_map(tmp_path / "a.hdf", data, 1.25)
    write_hdf_map(tmp_path / "whole.hdf", np.rint(data), 1.25)
    with h5py.File(tmp_path / "a.hdf") as file:
        assert file["MDF/images"].attrs["imageid_max"].tolist() == [0]
        header = {name: value for name, value in file["MDF/images/0"].attrs.items() if np.ndim(value)}
        assert file["MDF/images/0/image"].shape == (4, 5, 6)
    told = {name.removeprefix("EMAN."): value[0] for name, value in header.items()}
    assert (told["nx"], told["ny"], told["nz"]) == (6, 5, 4)
    assert (told["apix_x"], told["apix_y"], told["apix_z"]) == (1.25,) * 3
    solid = data[1:].astype(np.float64)
    expected = {
        "minimum": data.min(), "maximum": data.max(), "mean": data.mean(dtype=float), "mean_nonzero": solid.mean(),
        "sigma": data.std(ddof=1, dtype=float), "sigma_nonzero": solid.std(ddof=1), "square_sum": (solid**2).sum(),
    }  # fmt: skip
    for name, value in expected.items():
        assert told[name] == pytest.approx(value, rel=1e-6), name
    assert told["all_int"] == 0
    with h5py.File(tmp_path / "whole.hdf") as file:
        assert file["MDF/images/0"].attrs["EMAN.all_int"][0] == 1


def test_attributes_are_of_the_kind_that_eman2_writes(tmp_path: Path, shared_data: Path) -> None:
    with h5py.File(shared_data / "eman_hdf/eman2_stack_48x64.hdf") as real:
        group = real["MDF/images/0"]
        # The statistics of a real image are EMAN2's own: ours of the same voxels have to agree.
        image = group["image"][()]
        write_hdf_map(tmp_path / "a.hdf", image[None], float(group.attrs["EMAN.apix_x"][0]))
        with h5py.File(tmp_path / "a.hdf") as own:
            made = own["MDF/images/0"]
            particle_only = ("EMAN.MRC", "EMAN.IMODMRC", "EMAN.ctf", "EMAN.xform", "EMAN.ptcl", "EMAN.source")
            plain = {name for name in group.attrs if not name.startswith(particle_only)} - {"EMAN.data_path"}
            assert plain == set(made.attrs)
            for name in plain:
                ours, theirs = made.attrs.get_id(name), group.attrs.get_id(name)
                assert ours.shape == theirs.shape, name
                assert ours.get_type() == theirs.get_type(), name
                if name not in ("EMAN.changecount",):
                    assert made.attrs[name] == pytest.approx(group.attrs[name], rel=1e-6), name
            limit, theirs = (file["MDF/images"].attrs.get_id("imageid_max") for file in (own, real))
            assert limit.get_type() == theirs.get_type()
            assert made["image"].id.get_type() == group["image"].id.get_type()
            assert made["image"].chunks is None
    with pytest.raises(InputError, match=r"holds 64 x 64 and no 3D map|holds 48 images"):
        read_hdf_map(shared_data / "eman_hdf/eman2_stack_48x64.hdf")


def test_maps_of_fewer_bits_come_back_scaled(tmp_path: Path) -> None:
    """EMAN2 keeps such a value v as (v - min) / (max - min) * (2^bits - 1), compressed section by section."""
    data = _map((6, 7, 8))
    low, high = float(data.min()), float(data.max())
    with h5py.File(tmp_path / "a.hdf", "w") as file:
        group = file.create_group("MDF/images/0")
        kept = np.rint((data - low) / (high - low) * 4095).astype(np.uint16)
        group.create_dataset("image", data=kept, chunks=(1, 7, 8), compression="gzip", compression_opts=1)
        group.attrs["EMAN.stored_renderbits"] = np.array([12], np.int32)
        group.attrs["EMAN.stored_rendermin"] = np.array([low], np.float32)
        group.attrs["EMAN.stored_rendermax"] = np.array([high], np.float32)
        group.attrs["EMAN.apix_x"] = np.array([13.1], np.float32)
    again, voxel_A = read_hdf_map(tmp_path / "a.hdf")
    np.testing.assert_allclose(again, data, atol=0.51 * (high - low) / 4095)
    assert voxel_A == 13.1


def _change(path: Path, **attributes: object) -> Path:
    write_hdf_map(path, _map((4, 4, 4)), 2.0)
    with h5py.File(path, "r+") as file:
        for name, value in attributes.items():
            file["MDF/images/0"].attrs[f"EMAN.{name}"] = value
    return path


def test_what_is_no_map_is_refused_in_one_sentence(tmp_path: Path) -> None:
    def refused(path: Path, match: str) -> None:
        with pytest.raises(InputError, match=match) as error:
            read_hdf_map(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)

    refused(tmp_path / "absent.hdf", "not a file that can be read")
    refused(tmp_path, "not a file that can be read")
    for name, content in (("empty.hdf", b""), ("text.hdf", b"no HDF5 at all")):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "damaged or not an HDF5 map")
    whole = _change(tmp_path / "whole.hdf").read_bytes()
    for length in (100, 1000, len(whole) - 8):
        (tmp_path / "cut.hdf").write_bytes(whole[:length])
        refused(tmp_path / "cut.hdf", "damaged or not an HDF5 map")
    with h5py.File(tmp_path / "other.hdf", "w") as file:
        file["data"] = np.zeros((4, 4, 4))
    refused(tmp_path / "other.hdf", "no group /MDF/images")
    with h5py.File(tmp_path / "none.hdf", "w") as file:
        file.create_group("MDF/images/0")
    refused(tmp_path / "none.hdf", "holds no image 0")
    refused(_change(tmp_path / "n.hdf", nx=np.int32(5)), r"header of \(4, 4, 5\) voxels.* data of \(4, 4, 4\)")
    refused(_change(tmp_path / "c.hdf", is_complex=np.int32(1)), "real-space map")
    refused(_change(tmp_path / "v.hdf", apix_y=np.float64(2.1)), "voxels of 2, 2.1, 2 A along x, y, z")
    with h5py.File(_change(tmp_path / "two.hdf"), "r+") as file:
        file["MDF/images"].attrs["imageid_max"] = np.array([1], np.int32)
    refused(tmp_path / "two.hdf", "holds 2 images")


@pytest.mark.parametrize("chunks", [None, (64, 64, 64)])
def test_a_small_file_cannot_ask_for_much_memory(tmp_path: Path, chunks: tuple[int, ...] | None) -> None:
    with h5py.File(tmp_path / "huge.hdf", "w") as file:
        # 4 TB that were never written
        file.create_group("MDF/images/0").create_dataset("image", (10000, 10000, 10000), np.float32, chunks=chunks)
    with pytest.raises(InputError, match="promises 4000000000000 bytes of voxels but stores 0"):
        read_hdf_map(tmp_path / "huge.hdf")


def test_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, old[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*a\.hdf.*free space"):
            write_hdf_map(tmp_path / "a.hdf", _map((30, 30, 30)), 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
