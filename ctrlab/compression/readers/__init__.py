"""How each kind of reader of the embedding is rewritten to read latents: one file per reader, named in `models.folding`."""

from ctrlab.compression.readers.base import rule_for

__all__ = ["rule_for"]
