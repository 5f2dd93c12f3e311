"""The rule on batches of one row, which have no batch statistics; loads without torch."""

from ctrlab.training.configs import FitConfig


def one_row_fault(num_rows: int | None, config: FitConfig) -> str | None:
    """Why a model with batch normalisation cannot be trained with these batches; None where it can.

    A last batch of one row is left out of every epoch, so only batches that are all of one row are a fault.

    Args:
        num_rows: of the split to train on; None where it is not known.

    >>> one_row_fault(1000, FitConfig(batch_size=64)) is None
    True
    >>> one_row_fault(1000, FitConfig(batch_size=1))
    'batch_norm needs two rows a batch at least, and batch_size is 1; raise batch_size or set batch_norm to false'
    """
    if config.batch_size == 1:
        return "batch_norm needs two rows a batch at least, and batch_size is 1; raise batch_size or set batch_norm to false"
    if num_rows == 1:
        return f"batch_norm needs two rows a batch at least, and the {config.rows} split has 1 row; encode more rows"
    return None
