"""The models of the speed benchmarks: one setting for every framework, so that the dense parts do the same work.

39 x 16 vectors; MLP 400x3 with ReLU, no dropout; batch normalisation only in AFN+, where DeepCTR-Torch always has it. Tables and
the dense part have the same shapes everywhere; the greatest difference is AutoInt+, where DeepCTR-Torch projects the residual.
"""

EMBED_DIM = 16
MLP = (400, 400, 400)
CROSS_LAYERS = 3
ATTENTION = {"layers": 2, "dim": 16, "heads": 2}  # as wide as the vectors, which is all that DeepCTR-Torch offers
REDUCTION = 3
LOGARITHMIC_NEURONS = 1000
INIT_STD = 0.01
LEARNING_RATE = 1e-3

TITLES = {
    "deepfm": "DeepFM", "dcn": "DCN", "autoint_plus": "AutoInt+", "fibinet": "FiBiNET", "nfm": "NFM", "afn_plus": "AFN+",
    "gdcn": "GDCN", "dcnv2": "DCN V2",
}  # fmt: skip
#: The seven of the paper, then what is measured besides.
PAPER = ("deepfm", "dcn", "autoint_plus", "fibinet", "nfm", "afn_plus", "gdcn")
EXTRA = ("dcnv2",)
