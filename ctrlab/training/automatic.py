"""Settings of a training that follow from its rows. Loads without torch."""

from typing import NamedTuple

from ctrlab.training.configs import FitConfig

_STEPS_PER_EPOCH = 100
_BATCH_SIZES = (64, 128, 256, 512, 1024)
_ROWS_IN_ALL = 3_000_000
_MOST_EPOCHS = 20
_EVALUATIONS = 4
_STEPS_BETWEEN_EVALUATIONS = 5


class Schedule(NamedTuple):
    """The numbers of a training that `FitConfig` may leave to the data, all given."""

    batch_size: int
    epochs: int
    evaluations_per_epoch: int


def schedule_for(config: FitConfig, num_rows: int) -> Schedule:
    """The numbers that `config` gives, and for each that it leaves unset the one that follows from the rows to train on.

    batch_size: 64 to 1024, the largest power of two with which an epoch has 100 steps or more: fewer hardly move the tables.
    epochs: so many that 3 million rows are read in all, but 20 at most; one from 1.5 million rows on. The best checkpoint of
        small data mostly falls into the first three epochs, which early stopping finds.
    evaluations_per_epoch: 4, and fewer where less than 5 steps would lie between two.

    >>> schedule_for(FitConfig(), 8000)
    Schedule(batch_size=64, epochs=20, evaluations_per_epoch=4)
    >>> schedule_for(FitConfig(epochs=2), 200_000)
    Schedule(batch_size=1024, epochs=2, evaluations_per_epoch=4)
    >>> schedule_for(FitConfig(), 40_000_000)
    Schedule(batch_size=1024, epochs=1, evaluations_per_epoch=4)
    """
    fitting = [size for size in _BATCH_SIZES if size * _STEPS_PER_EPOCH <= num_rows]
    batch_size = config.batch_size or max(fitting, default=_BATCH_SIZES[0])
    steps = max(1, -(-num_rows // batch_size))
    return Schedule(
        batch_size=batch_size,
        epochs=config.epochs or max(1, min(_MOST_EPOCHS, _ROWS_IN_ALL // max(1, num_rows))),
        evaluations_per_epoch=config.evaluations_per_epoch or max(1, min(_EVALUATIONS, steps // _STEPS_BETWEEN_EVALUATIONS)),
    )


def resolve(config: FitConfig, num_rows: int) -> FitConfig:
    """`config` with every number of its `Schedule` given: a copy that repeats the same training on any rows."""
    return config.replace(**schedule_for(config, num_rows)._asdict())
