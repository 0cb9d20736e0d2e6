"""Options of cluster-averages, validated once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcsort.errors import OptionError, require

__all__ = ["AveragesOptions"]

_SIMILARITIES = ("ssim", "ncc")
_EXTRACTS = ("classes", "averages", "both")


@dataclass(frozen=True)
class AveragesOptions:
    """What the user asks of cluster-averages.

    Attributes
    ----------
    averages : stack, RELION's classes or model STAR, folder of cl2d, or .xmd with a block of classes.
    output_dir : folder of the results.
    particles : STAR file with the class and the alignment of every particle; None: the one that belongs to the
        averages, if there is one.
    min_clusters, max_clusters : bounds of the number of families; a maximum of -1 is two less than there are averages.
        With a minimum of 1 the averages may turn out to be one family.
    similarity : "ssim" or "ncc".
    extract : "classes" writes the particles with merged classes, "averages" the merged averages; None is both where
        particles are known.
    angpix : pixel size in A of averages and particles; None is that of their headers and tables.
    datadir : folder in which stacks are looked up as well.
    workers : threads; results do not depend on it.
    seed : of the random numbers.
    overwrite : replace existing output.
    quiet : print nothing.

    Raises
    ------
    OptionError
        If a value is outside its range or options contradict each other.
    """

    averages: Path
    output_dir: Path
    particles: Path | None = None
    min_clusters: int = 10
    max_clusters: int = -1
    similarity: str = "ssim"
    extract: str | None = None
    angpix: float | None = None
    datadir: Path | None = None
    workers: int = 1
    seed: int = 0
    overwrite: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        low, high = self.min_clusters, self.max_clusters
        require("--min-clusters", low, low >= 1, "1 or more")
        require("--max-clusters", high, high == -1 or high >= 1, "1 or more, or -1 for two less than the averages")
        if high != -1 and high < low:
            raise OptionError(f"--max-clusters {high} is less than --min-clusters {low}; raise it or lower the other")
        require("--similarity", self.similarity, self.similarity in _SIMILARITIES, " or ".join(_SIMILARITIES))
        known = self.extract is None or self.extract in _EXTRACTS
        require("--extract", self.extract, known, "one of " + ", ".join(_EXTRACTS))
        pixel = self.angpix
        require("--angpix", pixel, pixel is None or (bool(np.isfinite(pixel)) and pixel > 0), "a pixel size in A")
        require("-j", self.workers, self.workers >= 1, "1 or more")
        if self.output_dir.is_file():
            raise OptionError(f"--output-dir {self.output_dir} is a file; give the name of a folder")
