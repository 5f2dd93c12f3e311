"""What the dashboard can explain: a short form for popovers; the long form, shown under Learn, is in `assets/learn-*.md`."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

_ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Topic:
    """One idea; `short` is two sentences."""

    name: str
    title: str
    short: str

    @property
    def body(self) -> str:
        """The whole of it: Markdown with formulas."""
        return _read(self.name)


@cache
def _read(name: str) -> str:
    return (_ASSETS / f"learn-{name}.md").read_text(encoding="utf-8")


TOPICS: dict[str, Topic] = {
    topic.name: topic
    for topic in (
        Topic(
            "pca",
            "PCA of a layer's outputs",
            "Run rows through the layer, collect its output vectors, and find the directions in which they spread "
            "most. If a few directions carry almost all of the spread, the layer can be replaced by two thin "
            "ones.",
        ),
        Topic(
            "low-rank",
            "Features are low-rank, weights are not",
            "The weights of a trained layer use nearly all of their directions, so cutting them directly loses "
            "much. What the layer puts out on real rows uses few, because real rows themselves are far from "
            "filling the space.",
        ),
        Topic(
            "afm",
            "Atomic Feature Mimicking in three equations",
            "AFM replaces one linear layer by two thin ones whose outputs mimic the original's as closely as the "
            "rank allows. It needs one pass over the data and no labels.",
        ),
        Topic(
            "break-even",
            "The break-even rank",
            "Two factors are smaller than the one layer only below rank in x out / (in + out). At or above it, "
            "the layer stays as it is.",
        ),
        Topic(
            "sensitivity",
            "Sensitivity: what a rank costs in AUC",
            "Each layer is truncated by itself, rank by rank, and the validation rows run through the model again. "
            "The variance a rank discards says how much the layer's output changes; only the labels say whether that matters.",
        ),
        Topic(
            "folding",
            "Folding",
            "After compression an embedding comes as a short vector and a small projection back to full width. "
            "Where the next step is linear, that projection can be multiplied into it ahead of time, and then "
            "costs nothing.",
        ),
        Topic(
            "honesty",
            "Honest comparisons",
            "A gain after compression and fine-tuning may come from the fine-tuning alone. So compare with the "
            "original after the same fine-tuning, and look at several seeds before believing a third digit.",
        ),
        Topic(
            "training",
            "Loss and AUC while training",
            "Log loss says how well the predicted click probabilities fit; AUC, the chance that a clicked row "
            "scores above one that was not. The checkpoint with the best validation AUC is kept, not the last "
            "one.",
        ),
        Topic(
            "encoding",
            "From a click log to ids",
            "Every categorical value gets a whole number by how often it occurs in the training rows; rare and "
            "unseen values share one id, missing ones another. Numbers are standardised or put in buckets. "
            "A list keeps its last elements, the most recent; shorter ones are filled up with padding, which models skip.",
        ),
    )
}
