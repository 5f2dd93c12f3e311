"""Topics explained in popovers (short form, here) and on the Learn page (long form, `assets/learn-*.md`)."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

_ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Topic:
    """One topic; `short` is two or three sentences."""

    name: str
    title: str
    short: str

    @property
    def body(self) -> str:
        """The long form: Markdown with formulas."""
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
            "Score rows with the model, collect the layer's output vectors and find the directions of largest variance. If a few "
            "directions hold almost all of the variance, two thin layers can replace the layer.",
        ),
        Topic(
            "low-rank",
            "Features are low-rank, weights are not",
            "The singular values of a trained weight matrix fall slowly, so truncating the matrix itself loses much. The layer's "
            "outputs on real rows have few large directions, because its inputs are strongly correlated.",
        ),
        Topic(
            "afm",
            "Atomic Feature Mimicking in three equations",
            "AFM replaces a linear layer by two thin ones whose output is the original's projected on its leading principal "
            "directions: the smallest squared error at that rank. It needs one pass over the data and no labels.",
        ),
        Topic(
            "break-even",
            "The break-even rank",
            "Two factors hold fewer weights than the layer only below rank in x out / (in + out). At or above that rank, "
            "the layer stays dense.",
        ),
        Topic(
            "sensitivity",
            "Sensitivity: what a rank costs in AUC",
            "Each layer alone is truncated to a few ranks and the validation rows are scored again. "
            "Variance says how much the layer's output changes; AUC, which uses the labels, says whether that matters.",
        ),
        Topic(
            "folding",
            "Folding",
            "A compressed embedding is a short vector and a projection back to full width. Where the next layer is linear, the "
            "projection is multiplied into its weights once and costs nothing when served.",
        ),
        Topic(
            "honesty",
            "Honest comparisons",
            "A gain after compression and fine-tuning may come from the fine-tuning alone. So compare with a control, the "
            "original after the same fine-tuning, and with several seeds before trusting the third decimal.",
        ),
        Topic(
            "training",
            "Loss and AUC while training",
            "Log loss measures the predicted click probabilities; AUC is the probability that a clicked row scores above "
            "one that was not clicked. Early stopping keeps the checkpoint with the best validation AUC.",
        ),
        Topic(
            "encoding",
            "Encoding: from a click log to ids",
            "Every categorical value gets an integer id by its frequency in the training rows; rare and "
            "unseen values share one id, missing values have another. Numbers are standardised or bucketed. "
            "A list keeps its last elements, the most recent; shorter lists are padded, and models skip the padding.",
        ),
    )
}
