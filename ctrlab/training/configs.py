"""Settings of a training; loads without torch, so the dashboard can draw its form."""

from dataclasses import dataclass
from typing import Literal

from ctrlab.config import Config, option

Monitor = Literal["auc", "log_loss"]
ComputeDtype = Literal["float32", "bfloat16"]
MatrixProducts = Literal["fixed", "timed"]


@dataclass(frozen=True, kw_only=True)
class FitConfig(Config):
    """How to train, or fine-tune, a model. Numbers that are unset follow from the rows, see `training.automatic.schedule_for`.

    >>> config = FitConfig(epochs=2, learning_rate=1e-3)
    >>> config.optimizer, config.replace(patience=2).patience
    ('adam', 2)
    >>> FitConfig(epochs=0)
    Traceback (most recent call last):
    ctrlab.errors.ConfigError: ...
    """

    epochs: int | None = option(
        None,
        minimum=1,
        maximum=1000,
        help="Most passes over the rows; unset: from the number of rows, 20 for small data, 1 from 1.5 million rows on.",
    )
    batch_size: int | None = option(
        None,
        minimum=1,
        maximum=65536,
        unit="rows",
        help="Rows per optimizer step; unset: from the number of rows, 64 to 1024. Millions of rows can afford 4096 and more.",
    )
    learning_rate: float = option(2e-3, minimum=1e-7, maximum=1.0, step=1e-4, help="Step size of Adam.")
    optimizer: str = option(
        "adam",
        choices=("adam", "lazy_adam"),
        advanced=True,
        help="adam moves every row of the tables at every step, as most published results did; on the CPU a row's updates are "
        "deferred until it is next read, so large tables cost nothing. lazy_adam moves only the rows that the batch uses.",
    )
    l2_embedding: float = option(
        0.0,
        minimum=0.0,
        maximum=10.0,
        advanced=True,
        label="L2 on embeddings",
        help="Adds l2/2 times the squared norm of the tables, first-order weights included, to the loss: of the batch's rows "
        "(lazy_adam) or of all rows (adam), which then really cost as much as the tables hold.",
    )
    l2_dense: float = option(
        0.0,
        minimum=0.0,
        maximum=10.0,
        advanced=True,
        label="L2 on other weights",
        help="Adds l2/2 times the squared norm of all weights outside the tables to the loss.",
    )
    clip_norm: float = option(
        10.0, minimum=0.0, maximum=1e6, advanced=True, help="Scale gradients down to this norm where they exceed it; 0 for never."
    )
    evaluations_per_epoch: int | None = option(
        None,
        minimum=1,
        maximum=100,
        help="How often in an epoch the validation rows are measured; unset: 4, fewer where an epoch has few steps.",
    )
    monitor: Monitor = option(
        "log_loss",
        label="Best by",
        help="What makes a model the best so far on the validation rows: its log loss, which also sees calibration, or its AUC.",
    )
    patience: int = option(4, minimum=0, maximum=1000, help="Stop after this many evaluations without a better one; 0 for never.")
    warmup_steps: int = option(
        0, minimum=0, maximum=1_000_000, advanced=True, help="The step size grows linearly from 0 over so many steps."
    )
    plateau_factor: float = option(
        1.0,
        minimum=1e-6,
        maximum=1.0,
        advanced=True,
        help="Multiply the step size by this after every evaluation that is not better; 1 leaves it.",
    )
    keep_initial: bool = option(
        False, help="Count the initial model as a candidate for the best: fine-tuning that only harms then changes nothing."
    )
    rows: str = option(
        "train",
        choices={"train": "Training rows", "finetune": "Fine-tuning rows"},
        help="The split to train on; finetune is one held out for fine-tuning.",
    )
    distillation: float = option(
        0.0,
        minimum=0.0,
        maximum=1.0,
        step=0.1,
        advanced=True,
        help="Share of the loss whose targets are the original's predicted probabilities instead of the clicks (Hinton et al., "
        "2015). Only where there is an original: in compression, or with a teacher.",
    )
    seed: int = option(0, minimum=0, maximum=2**31 - 1, help="Fixes the order of rows and dropout.")
    compute_dtype: ComputeDtype = option(
        "float32",
        label="Numbers of linear layers",
        advanced=True,
        help="bfloat16 multiplies and keeps what lies between linear layers at half the width, with 8 bits of precision; "
        "weights, their updates and sums stay float32. Up to twice as fast on processors with bfloat16 instructions, slower on "
        "others.",
    )
    matrix_products: MatrixProducts = option(
        "fixed",
        advanced=True,
        help="fixed chooses the library of each matrix product by its kind: one seed gives one model. timed measures both "
        "libraries on the first batch, which can be some per cent faster; its choices are recorded with the model.",
    )
    matrix_choices: tuple[str, ...] = option(
        (), advanced=True, help="Choices that an earlier timed training recorded, to be repeated: the same weights then come out."
    )
    device: str = option(
        "auto", choices=("auto", "cpu", "cuda"), advanced=True, help="auto uses a CUDA graphics card where there is one."
    )


#: The default of fine-tuning. The step size is below that of training: on rows that the tables have memorised, larger ones lose
#: AUC. Step 0 counts, so that fine-tuning which only harms changes nothing; the best is chosen by log loss, because a better AUC
#: with worse probabilities harms bidding. The optimizer is the one that these settings were chosen with.
FINETUNE = FitConfig(epochs=1, optimizer="lazy_adam", learning_rate=2e-4, keep_initial=True, monitor="log_loss")
