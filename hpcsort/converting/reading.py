"""Particles of any format with everything that their file says, as a table with RELION's columns and further ones."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpcsort.converting.kept import FOREIGN, Fields, as_columns, entries_of, type_name
from hpcsort.converting.relion import restored_frames
from hpcsort.io import (
    ParticleTable,
    as_frame,
    cryosparc_fields,
    eman_headers,
    format_of,
    load_cryosparc,
    read_cryosparc,
    read_eman_headers,
    read_eman_stack,
    read_particles,
    read_tables,
    read_xmd,
    read_xmipp,
    table_of_frame,
    xmipp_columns,
)
from hpcsort.io.star import Block

__all__ = ["ALWAYS", "TYPES", "read_whole", "types_of"]

TYPES = "hpcsort_types"
"""Block of a STAR file with the types of columns that another format knows (columns hpcsortColumn, hpcsortType)."""
ALWAYS = (
    "blob/sign", "ctf/type", "alignments3D/split", "alignments3D/class", "itemId", "enabled", "flip", "origin_x",
    "origin_y", "origin_z",
)  # fmt: skip
"""Fields that a translation has whatever the table says."""
_KINDS = "biufSU"
"""Kinds of values that a table can hold: numbers and text."""
_LEAVE = {"need_images": False, "need_poses": False, "need_ctf": False}


@dataclass(frozen=True)
class _Raw:
    """What a file says in its own words: fields by source, and the blocks of tables that it has."""

    own: Fields
    relion: Fields = field(default_factory=dict)
    optics: Fields = field(default_factory=dict)
    foreign: dict[str, npt.NDArray] = field(default_factory=dict)
    blocks: dict[str, Block] = field(default_factory=dict)
    block_name: str = "particles"


def read_whole(path: Path, *, datadir: Path | None = None, angpix: float | None = None) -> ParticleTable:
    """Read particles with all columns of their file; stacks, poses and CTF may be absent.

    A STAR file is as `read_particles` reads it. Of another format the table has RELION's columns, as they were where
    the file was converted from a STAR file, and the file's own as columns ``cs:field``, ``eman:header`` and
    ``xmipp:label``, the types of which stand in the block `TYPES`. A pixel size that is given is stated by the table
    from then on.

    Raises
    ------
    InputError
        As `read_particles`, `read_cryosparc`, `read_eman_stack` and `read_xmipp`.
    """
    kind = format_of(path)
    given: dict[str, Any] = {"datadir": datadir, "angpix": angpix, **_LEAVE}
    if kind == "star":
        return _stating(read_particles(path, smears=False, **given), angpix)
    if kind == "cs":
        table = read_cryosparc(path, **given)
        fields = {name: values for name, values in load_cryosparc(path).items() if values.dtype.kind in _KINDS}
        return _joined(table, "cs", _split(fields, "/"), cryosparc_fields, datadir)
    if kind == "hdf":
        table = read_eman_stack(path, **given)
        headers, attached = read_eman_headers(path)
        raw = replace(_split(headers, ":"), blocks=_blocks_of(attached))
        return _joined(table, "eman", raw, lambda made, _: eman_headers(made), datadir)
    table = read_xmipp(path, **given)
    blocks = {name: as_frame(block) for name, block in read_xmd(path).items()}
    chosen = next(name for name, block in blocks.items() if "image" in block and len(block))
    labels = blocks.pop(chosen)
    raw = _split({str(name): entries_of(labels[name]) for name in labels.columns}, ":")
    raw = replace(raw, blocks=dict(blocks), block_name=chosen)
    return _joined(table, "xmipp", raw, lambda made, folder: xmipp_columns(made, folder).columns, datadir)


def _stating(table: ParticleTable, angpix: float | None) -> ParticleTable:
    """Write a pixel size that was given into the table."""
    if angpix is None:
        return table
    if table.optics is None:
        return replace(table, frame=table.frame.assign(rlnImagePixelSize=angpix))
    return replace(table, optics=table.optics.assign(rlnImagePixelSize=angpix))


def types_of(blocks: Mapping[str, Block]) -> dict[str, str]:
    """Types of columns as the block `TYPES` tells them."""
    block = blocks.get(TYPES)
    if block is None:
        return {}
    frame = as_frame(block)
    if not {"hpcsortColumn", "hpcsortType"} <= set(frame.columns):
        return {}
    return dict(zip(frame["hpcsortColumn"].astype(str), frame["hpcsortType"].astype(str), strict=True))


def _split(fields: Mapping[str, npt.NDArray], mark: str) -> _Raw:
    """Tell what a format says itself from what it keeps of others."""
    own, relion, optics, foreign = {}, {}, {}, {}
    for name, values in fields.items():
        source, _, rest = name.partition(mark)
        if source == "relion":
            relion[rest] = _decoded(rest, values)
        elif source == "optics":
            optics[rest] = _decoded(rest, values)
        elif source in FOREIGN and rest:
            kept = f"{source}:{rest}"
            foreign[kept] = values if mark == "/" and _typed(kept) else _decoded(rest, values)
        else:
            own[name] = values
    return _Raw(own, relion, optics, foreign)


def _joined(
    native: ParticleTable,
    source: str,
    raw: _Raw,
    translate: Callable[[ParticleTable, Path], Iterable[str]],
    datadir: Path | None,
) -> ParticleTable:
    """Give the translation the columns that its file has kept, and those of the file itself."""
    blocks = {name: block for name, block in raw.blocks.items() if name not in ("optics", TYPES)}
    types, own, frame, optics = types_of(raw.blocks), raw.own, native.frame, native.optics
    if "rlnImageName" in raw.relion:
        # Fields that follow from RELION's columns are made again when they are needed.
        made = {*translate(native, native.source.parent), *ALWAYS}
        own = {name: values for name, values in own.items() if name not in made}
        listed = raw.blocks.get("optics")
        by_particle = raw.optics if listed is None else _per_particle(as_frame(listed), raw.relion)
        frame, optics = restored_frames(native, raw.relion, by_particle)
        optics = _with_unused(optics, listed)
    else:
        frame, optics = frame.assign(**raw.relion), _with_columns(native, raw.optics)
    named = {f"{source}:{name}": values for name, values in own.items()}
    strange: dict[str, Any] = {**raw.foreign, **named}
    # Xmipp's labels have no types, and tables and headers hold what they keep of others as columns already.
    typed = {name: values for name, values in {"cs": strange, "eman": named}.get(source, {}).items() if _typed(name)}
    types |= {name: type_name(values) for name, values in typed.items()}
    strange |= as_columns(typed)
    frame = pd.concat([frame, pd.DataFrame(strange, index=frame.index)], axis=1)
    told = {name: types[name] for name in strange if name in types}
    if told:
        blocks[TYPES] = pd.DataFrame({"hpcsortColumn": list(told), "hpcsortType": list(told.values())})
    table = table_of_frame(native.source, frame, optics, datadir=datadir, need_images=False)
    order = (*(("optics",) if optics is not None else ()), raw.block_name, *blocks)
    return replace(table, block_name=raw.block_name, block_order=order, other_blocks=blocks, notes=native.notes)


def _typed(column: str) -> bool:
    return not column.startswith("xmipp:")


def _per_particle(optics: pd.DataFrame, relion: Fields) -> Fields:
    """Columns of an optics table for each particle; none where its groups are not those of the particles."""
    if "rlnOpticsGroup" not in optics or "rlnOpticsGroup" not in relion:
        return {}
    rows = pd.Index(optics["rlnOpticsGroup"]).get_indexer(pd.Index(relion["rlnOpticsGroup"]))
    return {} if (rows < 0).any() else {str(name): entries_of(optics[name])[rows] for name in optics.columns}


def _with_columns(native: ParticleTable, columns: Fields) -> pd.DataFrame | None:
    """Add columns that are told for each particle to the optics table."""
    if native.optics is None:
        return None
    first = [int(np.argmax(native.optics_group == group)) for group in range(len(native.optics))]
    return native.optics.assign(**{name: values[first] for name, values in columns.items()})


def _with_unused(optics: pd.DataFrame | None, listed: Block | None) -> pd.DataFrame | None:
    """Add the groups of the listed table that no particle is in."""
    if optics is None or listed is None:
        return optics
    unused = as_frame(listed)
    unused = unused[~unused["rlnOpticsGroup"].isin(optics["rlnOpticsGroup"])]
    return pd.concat([optics, unused]).sort_values("rlnOpticsGroup").reset_index(drop=True) if len(unused) else optics


def _blocks_of(text: str) -> dict[str, Block]:
    """Blocks of a STAR file that is given as text."""
    if not text:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "tables.star"
        place.write_text(text, encoding="utf-8")
        return read_tables(place)


def _decoded(name: str, values: npt.NDArray) -> npt.NDArray:
    """Entries of a column; text that is all numbers is numbers, as in a STAR file, except in columns ...Name."""
    if values.dtype.kind != "S":
        return values
    texts = pd.Series([text.decode() for text in values.tolist()], dtype=object)
    if not name.endswith("Name"):
        with suppress(ValueError):
            return pd.to_numeric(texts).to_numpy()
    return texts.to_numpy(object)
