"""The real Criteo rows as ids alone, alike for every framework: numbers become buckets, rare values share an id."""

from pathlib import Path

import numpy as np
from common import real_data
from criteo_shaped import Rows, save

MIN_COUNT = 2


def criteo_splits(folder: Path) -> tuple[Path, Path]:
    """Folders of the training and the test rows, a random nine tenths and one tenth; made once."""
    train, test = folder / "criteo-real-train", folder / "criteo-real-test"
    if not (test / "field_dims.npy").exists():
        ids, labels, dims = _encoded()
        order = np.random.default_rng(0).permutation(len(labels))
        cut = len(order) // 10
        for place, chosen in ((train, order[cut:]), (test, order[:cut])):
            save(Rows(ids[chosen], labels[chosen], dims), place)
    return train, test


def _encoded() -> "tuple[np.ndarray, np.ndarray, tuple[int, ...]]":  # type: ignore[type-arg]
    """Vocabularies come from all rows, for every contender alike."""
    import pandas as pd

    frame = pd.read_parquet(real_data("criteo_137k.parquet")).fillna("")
    columns, dims = [], []
    for name in frame.columns[1:]:
        values = frame[name].map(_bucket) if name.startswith("I") else frame[name]
        counts = values.value_counts()
        number = {value: place for place, value in enumerate(counts.index[counts >= MIN_COUNT], start=1)}
        columns.append(values.map(number).fillna(0).to_numpy(np.int32))
        dims.append(len(number) + 1)
    return np.stack(columns, axis=1), frame["label"].to_numpy().astype(np.uint8), tuple(dims)


def _bucket(text: str) -> str:
    """floor(log2(x)^2) of large counts, as the winners of the Criteo challenge did."""
    if text == "":
        return ""
    value = float(text)
    return f"{int(np.log(value) ** 2) if value > 2 else int(value)}"
