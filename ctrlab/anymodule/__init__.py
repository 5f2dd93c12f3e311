"""Spectra and compression of any `nn.Module`, whatever framework it comes from."""

from ctrlab.anymodule.adapter import compress, restore
from ctrlab.anymodule.spectra import collect as spectra

__all__ = ["compress", "restore", "spectra"]
