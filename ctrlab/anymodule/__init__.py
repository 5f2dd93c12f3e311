"""Spectra and compression of any `nn.Module`, whatever framework it comes from."""

from ctrlab.anymodule.spectra import collect as spectra
from ctrlab.anymodule.surgery import CompressionResult, compress, restore

__all__ = ["CompressionResult", "compress", "restore", "spectra"]
