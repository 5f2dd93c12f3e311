"""Compression of models trained in FuxiCTR and DeepCTR-Torch. The frameworks themselves are not imported."""
