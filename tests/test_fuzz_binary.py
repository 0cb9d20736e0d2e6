"""Damaged binary files: MRC, HDF5 of EMAN2, smear tables, .cs and TIFF end in a whole result or in one sentence."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from fuzz_cases import BYTES, FUZZ, damaged, survives, whole_map, whole_smears, whole_table
from hypothesis import given
from hypothesis import strategies as st
from io_cases import CTF_TEXT, cs_fields, write_cs, write_eman_stack
from PIL import Image

from hpcsort.io import (
    HdfStack,
    ImageReader,
    MrcStack,
    ParticleTable,
    Smears,
    read_any_map,
    read_cryosparc,
    read_eman_stack,
    read_hdf_map,
    read_input,
    read_map,
    read_smears,
    write_hdf_map,
    write_map,
    write_smears,
    write_stack,
)
from hpcsort.pairs.micrographs import read_micrograph
from hpcsort.volumes import read_mask

Changes = list[tuple[str, int, bytes]]
_BOX = 7


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with one small valid file of each kind."""
    folder = tmp_path_factory.mktemp("fuzz")
    images = np.random.default_rng(0).normal(size=(2, _BOX, _BOX)).astype(np.float32)
    (folder / "J1").mkdir()
    write_stack(folder / "J1" / "p.mrc", np.repeat(images, 2, axis=0), (4, _BOX, _BOX), 1.31)
    write_cs(folder / "p.cs", cs_fields())
    write_eman_stack(folder / "s.hdf", images, np.tile(np.eye(3, 4), (2, 1, 1)), [CTF_TEXT] * 2)
    write_eman_stack(folder / "b.hdf", images, np.tile(np.eye(3, 4), (2, 1, 1)), [CTF_TEXT] * 2, bits=8)
    write_hdf_map(folder / "m.hdf", np.ones((3, 3, 3)), 1.0)
    smears = Smears.of_lists([0, 0, 1], np.ones((3, 3)), np.ones((3, 2)), [0.5, 0.5, 1])
    write_smears(folder / "s.h5", smears, ["a", "b"])
    write_stack(folder / "s.mrcs", images, images.shape, 2.0)
    write_stack(folder / "half.mrcs", images, images.shape, 2.0, np.float16)
    write_map(folder / "m.mrc", np.ones((_BOX,) * 3), 2.0)
    Image.fromarray(images[0]).save(folder / "t.tif")
    return folder


def _changed(files: Path, name: str, changes: Changes, reach: int = 10**6) -> Path:
    path = files / f"x{Path(name).suffix}"
    path.write_bytes(damaged((files / name).read_bytes(), changes, reach))
    return path


def _readable(table: ParticleTable) -> None:
    whole_table(table)
    with ImageReader(table) as reader:
        survives(lambda: reader.read(np.arange(len(table))), lambda images: images.shape == (len(table), _BOX, _BOX))


@FUZZ
@given(changes=BYTES, near=st.booleans())
def test_cs_files(files: Path, changes: Changes, near: bool) -> None:
    # half of the time only the header, where a byte means most
    path = _changed(files, "p.cs", changes, 900 if near else 10**6)
    survives(lambda: read_cryosparc(path), whole_table)


_KINDS = st.sampled_from(["<f4", "<f8", "<u4", "<u8", "<i8", "S3", "U2", "?", "<c8", "<M8[s]"])


@FUZZ
@given(
    name=st.sampled_from([*cs_fields(), "location/micrograph_path", "blob/sign", "ctf/anisomag"]),
    kind=_KINDS,
    shape=st.sampled_from([(), (1,), (2,), (3,), (2, 2)]),
    raw=st.binary(min_size=16, max_size=16),
)
def test_cs_fields_of_any_type(files: Path, name: str, kind: str, shape: tuple[int, ...], raw: bytes) -> None:
    dtype = np.dtype(kind)
    size = 3 * int(np.prod(shape, dtype=int))
    values = np.frombuffer((raw * 64)[: size * dtype.itemsize], np.uint8).copy()
    if kind[0] == "U":
        values[:] = 0
    if kind == "?":
        values &= 1
    write_cs(files / "y.cs", {**cs_fields(), name: values.view(dtype).reshape(3, *shape)})
    survives(lambda: read_cryosparc(files / "y.cs", need_images=False), whole_table)
    survives(lambda: read_cryosparc(files / "y.cs", need_images=False, need_poses=False, need_ctf=False), len)


@FUZZ
@given(changes=BYTES, name=st.sampled_from(["s.hdf", "b.hdf"]))
def test_eman_stacks(files: Path, changes: Changes, name: str) -> None:
    path = _changed(files, name, changes)
    survives(lambda: read_eman_stack(path), _readable)

    def read() -> np.ndarray:
        with HdfStack(path) as stack:
            return stack.read([1, 0])

    survives(read, lambda images: images.shape[0] == 2)


@FUZZ
@given(text=st.text(max_size=40))
def test_any_text_as_ctf_of_eman(files: Path, text: str) -> None:
    entry = text.encode("utf-8").replace(b"\0", b"")
    path = write_eman_stack(files / "z.hdf", np.ones((1, 5, 5)))
    with h5py.File(path, "r+") as file:
        file["MDF/images/0"].attrs["EMAN.ctf"] = np.bytes_(b"E" + entry)
    survives(lambda: read_eman_stack(path, need_poses=False), len)


@FUZZ
@given(changes=BYTES)
def test_hdf_maps(files: Path, changes: Changes) -> None:
    path = _changed(files, "m.hdf", changes)
    survives(lambda: read_hdf_map(path), whole_map)


@FUZZ
@given(changes=BYTES)
def test_smear_tables(files: Path, changes: Changes) -> None:
    path = _changed(files, "s.h5", changes)
    survives(lambda: read_smears(path, ["b", "a"]), whole_smears)


@FUZZ
@given(changes=BYTES, name=st.sampled_from(["s.mrcs", "half.mrcs"]), near=st.booleans())
def test_mrc_stacks(files: Path, changes: Changes, name: str, near: bool) -> None:
    path = _changed(files, name, changes, 224 if near else 10**6)

    def read() -> tuple[tuple[int, ...], float, np.ndarray]:
        with MrcStack(path) as stack:
            return stack.shape, stack.voxel_A, stack.read(np.arange(len(stack)))

    def check(result: tuple[tuple[int, ...], float, np.ndarray]) -> None:
        shape, voxel_A, images = result
        assert images.shape == shape
        assert min(shape) > 0
        assert images.dtype == np.float32
        assert np.isfinite(voxel_A)
        assert voxel_A >= 0

    survives(read, check)


@FUZZ
@given(changes=BYTES, near=st.booleans())
def test_mrc_maps_and_masks(files: Path, changes: Changes, near: bool) -> None:
    path = _changed(files, "m.mrc", changes, 224 if near else 10**6)
    survives(lambda: read_map(path), whole_map)

    def check(mask: np.ndarray) -> None:
        assert mask.shape == (_BOX,) * 3
        assert mask.min() >= 0
        assert 0.5 < mask.max() <= 1

    survives(lambda: read_mask(path, _BOX, 2.0), check)


@pytest.mark.filterwarnings("ignore::UserWarning")
@FUZZ
@given(changes=BYTES)
def test_tiff_micrographs(files: Path, changes: Changes) -> None:
    path = _changed(files, "t.tif", changes)
    survives(lambda: read_micrograph(path), lambda image: image.ndim == 2 and image.dtype == np.float32)


@FUZZ
@given(
    content=st.binary(max_size=200),
    start=st.sampled_from([b"", b"\x93NUMPY\x01\x00", b"\x89HDF\r\n\x1a\n", b"\ndata_\n", b"\x94CSDAT"]),
    suffix=st.sampled_from([".star", ".cs", ".hdf", ".h5", ".mrcs", ".mrc", "", ".txt"]),
)
def test_any_bytes_under_any_name(files: Path, content: bytes, start: bytes, suffix: str) -> None:
    path = files / f"any{suffix}"
    path.write_bytes(start + content)
    survives(lambda: read_input(path), whole_table)
    survives(lambda: read_any_map(path), whole_map)
