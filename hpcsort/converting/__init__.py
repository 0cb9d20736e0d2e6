"""Conversion of particle tables between RELION, cryoSPARC, EMAN2, MERIDIEN and Xmipp without loss of columns."""

from hpcsort.converting.options import FORMATS, ConvertOptions
from hpcsort.converting.program import convert
from hpcsort.converting.reading import read_whole

__all__ = ["FORMATS", "ConvertOptions", "convert", "read_whole"]
