"""How each kind of reader of the embedding reads latents instead: one file a reader; importing this package registers them."""

from ctrlab.compression.readers import attention, cross, fm, mlp
from ctrlab.compression.readers.base import rule_for

__all__ = ["attention", "cross", "fm", "mlp", "rule_for"]
