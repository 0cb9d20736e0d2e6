"""The hot loops between particles and Fourier volumes: pure functions, arrays in, arrays out.

Volumes are half Fourier volumes cropped to the band: shape (2h+1, 2h+1, h+1) as [z, y, x] with h = `half_width`;
frequency (x, y, z), x >= 0, in voxels of the padded transform, is at index [z + h, y + h, x]. The pixel at integer
frequency (px, py) of a view A lies at ``pad * (A[0] * px + A[1] * py)``; a point with x < 0 is read, or written,
through its Friedel mate. Interpolation is trilinear. Every kernel exists in C++ and as a NumPy twin (``_reference``),
the specification. One rank is one thread; the GIL is released; sums run in a fixed order, so that a build gives the
same bits on every processor of one instruction set.
"""

from hpcsort.kernels._backend import backend, instruction_set
from hpcsort.kernels.add import add_rounded
from hpcsort.kernels.extract import extract_sections
from hpcsort.kernels.insert import complete_friedel, complete_friedel_records, insert_sections
from hpcsort.kernels.latents import Marginals, latent_posteriors, marginal_moments, moment_weights
from hpcsort.kernels.layout import aligned_empty, half_width, interleave, lane_count
from hpcsort.kernels.moments import backproject_moments, moment_record_length, section_moments
from hpcsort.kernels.score import leave_one_out_gains, pack_ridge, score_sections
from hpcsort.kernels.subtract import subtract_sections

__all__ = [
    "Marginals",
    "add_rounded",
    "aligned_empty",
    "backend",
    "backproject_moments",
    "complete_friedel",
    "complete_friedel_records",
    "extract_sections",
    "half_width",
    "insert_sections",
    "instruction_set",
    "interleave",
    "lane_count",
    "latent_posteriors",
    "leave_one_out_gains",
    "marginal_moments",
    "moment_record_length",
    "moment_weights",
    "pack_ridge",
    "score_sections",
    "section_moments",
    "subtract_sections",
]
