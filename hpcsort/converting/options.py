"""Options of convert, validated once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcsort.errors import OptionError

__all__ = ["FORMATS", "ConvertOptions"]

FORMATS = {
    "star": (".star",),
    "cs": (".cs",),
    "hdf": (".hdf", ".h5", ".hdf5"),
    "xmd": (".xmd",),
    "meridien": (".txt",),
    "lists": (),
}
"""Formats that are written, and the suffixes by which they are known."""


@dataclass(frozen=True)
class ConvertOptions:
    """What the user asks of convert.

    Attributes
    ----------
    source : STAR, .cs, HDF or .xmd file, text file of MERIDIEN's poses (.txt), or folder of a refinement by MERIDIEN.
    target : file to write; a folder for lists.
    to : format of the target, one of `FORMATS`; None follows its suffix.
    classes : numbers in rlnClassNumber that are kept; all if empty.
    lists : files of row numbers from 0, such as Cluster_000.txt; with several, each becomes a class.
    rows : first row and the row after the last that are kept, from 0; None is open.
    particles : table to which a text file of poses belongs, or to whose rows the numbers of lists refer.
    copy_images : write the images into a stack beside the target; HDF always holds them.
    datadir : folder in which image stacks are looked up as well.
    angpix : pixel size in A where the source lacks it.
    overwrite : replace existing files.
    """

    source: Path
    target: Path
    to: str | None = None
    classes: tuple[int, ...] = ()
    lists: tuple[Path, ...] = ()
    rows: tuple[int | None, int | None] = (None, None)
    particles: Path | None = None
    copy_images: bool = False
    datadir: Path | None = None
    angpix: float | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        form = self.format
        if self.copy_images and form in ("meridien", "lists"):
            raise OptionError(f"--copy-images has no place in {form}, which names no images; leave it out.")
        if self.particles is not None and self.source.suffix.lower() != ".txt" and form != "lists":
            raise OptionError("--particles belongs to a text file of poses or to --to lists; leave it out.")
        if len(self.lists) > 1 and self.classes:
            raise OptionError("several lists become classes, and --class chooses among those of the table; give one.")

    @property
    def format(self) -> str:
        """Format of the target."""
        if self.to is not None:
            return self.to
        suffix = self.target.suffix.lower()
        found = next((name for name, suffixes in FORMATS.items() if suffix in suffixes), None)
        if found is None:
            known = ", ".join(suffix for suffixes in FORMATS.values() for suffix in suffixes)
            raise OptionError(
                f"{self.target} tells no format by its suffix; give one of {known}, or name the format with --to."
            )
        return found
