"""Generates a seeded, Criteo-like click log with known true ranks.

Every categorical value k of field f has a true embedding e_f[k] = B_f z_f[k], where B_f (D, r_f) is an orthonormal basis of a
random subspace, so the field's true table has rank r_f. The log-odds of a click are those of a factorization machine:

    logit = bias + sum_f a_f[k_f] + sum_v w_v x_v + sum_{f<g} <e_f[k_f], e_g[k_g]>

With `history_of` each row gets a behaviour list of earlier values of that field, and the log-odds get the term
max_h <e_f[k_f], e_f[h]>, the similarity of the shown value to its nearest neighbour in the list (0 for an empty list). An average
over the list does not contain it: a model has to compare the elements with the shown value.

Values follow a Zipf distribution, some are missing (a missing value is one more k), numbers are skewed counts, and clicks are
drawn from the logit: no model can reach an AUC of 1, and the best possible AUC, `SyntheticTable.best_auc`, is known.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.config import Config, option

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig(Config):
    """Shape and difficulty of a synthetic log. The defaults generate the sample that ships with ctrlab."""

    num_rows: int = option(100_000, minimum=100, maximum=100_000_000, help="Rows to draw.")
    seed: int = option(7, minimum=0, maximum=2**31 - 1, help="Seed of the true embeddings and of the rows.")
    field_names: tuple[str, ...] = option(
        ("device", "region", "site", "placement", "advertiser", "campaign", "creative", "audience"), help="Categorical fields."
    )
    cardinalities: tuple[int, ...] = option(
        (8, 16, 150, 12, 60, 250, 400, 100), minimum=2, maximum=10_000_000, help="Number of values of each categorical field."
    )
    ranks: tuple[int, ...] = option((1, 2, 2, 1, 3, 3, 2, 3), minimum=1, maximum=64, help="Rank of each field's true table.")
    latent_dim: int = option(3, minimum=1, maximum=64, help="Dimension D of the true embeddings.")
    numeric_names: tuple[str, ...] = option(
        ("ad_age_hours", "impressions", "past_clicks", "page_views", "session_minutes", "bid_cents"),
        help="Numeric columns: skewed counts.",
    )
    zipf_exponent: float = option(
        1.4, minimum=0.0, maximum=3.0, help="Exponent of the Zipf distribution: larger, the more the frequent values dominate."
    )
    missing_share: float = option(0.08, minimum=0.0, maximum=0.9, help="Mean share of empty cells; it differs by column.")
    ctr: float = option(0.2, minimum=0.001, maximum=0.999, help="Click-through rate.")
    first_order_std: float = option(
        0.3, minimum=0.0, maximum=10.0, help="Standard deviation of the first-order part of the log-odds."
    )
    numeric_std: float = option(0.4, minimum=0.0, maximum=10.0, help="Standard deviation of the numeric part of the log-odds.")
    interaction_std: float = option(
        1.25, minimum=0.0, maximum=10.0, help="Standard deviation of the low-rank interaction in the log-odds."
    )

    history_of: str | None = option(
        None, help="Add a behaviour list of this field's values, <field>_history, on which the click depends; unset: none."
    )
    history_length: int = option(12, minimum=1, maximum=1000, help="Longest behaviour list.")
    history_std: float = option(
        1.25, minimum=0.0, maximum=10.0, help="Standard deviation of the behaviour list's part of the log-odds."
    )

    @property
    def history_name(self) -> str | None:
        """Name of the behaviour list's column; None without one."""
        return f"{self.history_of}_history" if self.history_of else None

    @property
    def planted_ranks(self) -> dict[str, int]:
        """The true rank of each categorical field's table."""
        return dict(zip(self.field_names, self.ranks, strict=True))

    def faults(self) -> list[str]:
        faults = []
        lengths = {len(self.field_names), len(self.cardinalities), len(self.ranks)}
        if len(lengths) > 1 or not self.field_names:
            faults.append("field_names, cardinalities and ranks must list the same fields, at least one")
        if self.ranks and max(self.ranks) > self.latent_dim:
            faults.append(f"ranks must be at most latent_dim={self.latent_dim}, got {max(self.ranks)}")
        if self.history_of is not None and self.history_of not in self.field_names:
            faults.append(f"history_of must be one of {', '.join(self.field_names)}, got {self.history_of}")
        names = (*self.field_names, *self.numeric_names, "click", *([self.history_name] if self.history_name else []))
        if len(set(names)) < len(names):
            faults.append("column names must differ from each other and from click")
        return faults


@dataclass(frozen=True)
class SyntheticTable:
    """A generated log with its ground truth.

    frame: the raw table: click, numeric columns, categorical columns, and the behaviour list, oldest first, with `^` between its
        elements; null where a cell is empty.
    probabilities: float64 (n,), the true click probability of each row.
    embeddings: true embeddings of each field, float64 (cardinality + 1, D); the last row is that of the missing value.
    """

    frame: pl.DataFrame
    probabilities: FloatArray
    embeddings: dict[str, FloatArray]

    @property
    def best_auc(self) -> float:
        """AUC of the true probabilities on these rows: the upper bound for any model."""
        clicked = self.frame["click"].to_numpy().astype(bool)
        ranks = pl.Series(self.probabilities).rank("average").to_numpy()
        positives, negatives = int(clicked.sum()), int((~clicked).sum())
        return float((ranks[clicked].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def planted_ranks(config: SyntheticConfig | None = None) -> dict[str, int]:
    """The true rank of each categorical field's table."""
    return (config or SyntheticConfig()).planted_ranks


def generate(config: SyntheticConfig | None = None) -> pl.DataFrame:
    """The raw table only; see `simulate`."""
    return simulate(config).frame


def simulate(config: SyntheticConfig | None = None) -> SyntheticTable:
    """Draw true embeddings and `num_rows` rows; the same config gives the same table.

    >>> table = simulate(SyntheticConfig(num_rows=1000))
    >>> table.frame.shape, table.embeddings["campaign"].shape
    ((1000, 15), (251, 3))
    """
    config = config or SyntheticConfig()
    # Independent random streams: more rows, other numeric columns or a history do not change the true embeddings.
    world, rows, clicks, past = (np.random.default_rng((config.seed, stream)) for stream in range(4))
    sizes = dict(zip(config.field_names, config.cardinalities, strict=True))
    picks = {
        name: _draw_values(rows, config.num_rows, size, config.zipf_exponent, _missing_share(world, config))
        for name, size in sizes.items()
    }
    picked = {name: np.bincount(pick, minlength=sizes[name] + 1) for name, pick in picks.items()}
    embeddings = {name: _embeddings(world, picked[name], config.planted_ranks[name], config.latent_dim) for name in picks}
    numbers, numeric_part = _draw_numbers(world, rows, config)
    logits = (
        _scaled(_first_order(world, picks, sizes), config.first_order_std)
        + _scaled(numeric_part, config.numeric_std)
        + _scaled(_interaction([embeddings[name][pick] for name, pick in picks.items()]), config.interaction_std)
    )
    history = _draw_history(past, config, sizes) if config.history_of else None
    if config.history_of and history is not None:
        near = _nearness(embeddings[config.history_of], picks[config.history_of], history)
        logits = logits + _scaled(near, config.history_std)
    probabilities = _sigmoid(logits + _bias_for(logits, config.ctr))
    clicked = pl.Series("click", (clicks.random(config.num_rows) < probabilities).astype(np.int8))
    words = {name: _words(world, name, sizes[name]) for name in picks}
    columns = [clicked, *numbers, *(words[name].gather(pick) for name, pick in picks.items())]
    if config.history_of and history is not None:
        columns.append(_as_list(words[config.history_of], history).alias(f"{config.history_name}"))
    return SyntheticTable(pl.DataFrame(columns), probabilities, embeddings)


def write_sample(path: str | Path, config: SyntheticConfig | None = None) -> SyntheticTable:
    """Write the raw table as .csv, .csv.gz or .parquet, by the name's ending, and return it with its ground truth."""
    table = simulate(config)
    path = Path(path)
    if path.suffix == ".parquet":
        table.frame.write_parquet(path, compression="zstd", compression_level=19)
    elif path.suffix == ".gz":
        # mtime=0 makes the file byte-identical each time.
        with path.open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=9, mtime=0) as packed:
            packed.write(table.frame.write_csv().encode())
    else:
        table.frame.write_csv(path)
    return table


def _missing_share(world: np.random.Generator, config: SyntheticConfig) -> float:
    """Random share of empty cells of a column: some columns are full, some often empty, as in real logs."""
    return float(np.clip(config.missing_share * world.exponential(), 0.0, 0.9)) if world.random() < 0.7 else 0.0


def _draw_values(rows: np.random.Generator, num_rows: int, size: int, exponent: float, missing: float) -> NDArray[np.int64]:
    """Zipf-distributed values 0..size-1, by falling frequency; `size` means an empty cell."""
    weights = 1.0 / (np.arange(size) + 2.0) ** exponent
    picks = np.searchsorted(np.cumsum(weights / weights.sum()), rows.random(num_rows)).clip(0, size - 1)
    return np.where(rows.random(num_rows) < missing, size, picks)


def _embeddings(world: np.random.Generator, counts: NDArray[np.int64], rank: int, latent_dim: int) -> FloatArray:
    """True embeddings (size + 1, D) of exactly `rank`, centred and whitened within their subspace over the drawn rows."""
    basis = np.linalg.qr(world.standard_normal((latent_dim, rank)))[0]
    latent = world.standard_normal((len(counts), rank))
    latent -= np.average(latent, axis=0, weights=counts)
    scatter = (latent * counts[:, None]).T @ latent / counts.sum()
    return np.asarray(latent @ np.linalg.inv(np.linalg.cholesky(scatter)).T @ basis.T)


def _first_order(world: np.random.Generator, picks: dict[str, NDArray[np.int64]], sizes: dict[str, int]) -> FloatArray:
    return np.asarray(np.sum([world.standard_normal(sizes[name] + 1)[pick] for name, pick in picks.items()], axis=0))


def _interaction(vectors: list[FloatArray]) -> FloatArray:
    """Sum over field pairs of inner products, by the square-of-sum identity."""
    total = np.sum(vectors, axis=0)
    squares = np.sum([(vector**2).sum(axis=1) for vector in vectors], axis=0)
    return np.asarray(0.5 * ((total**2).sum(axis=1) - squares))


def _draw_numbers(
    world: np.random.Generator, rows: np.random.Generator, config: SyntheticConfig
) -> tuple[list[pl.Series], FloatArray]:
    """Skewed non-negative counts with empty cells, and their part of the log-odds (0 for an empty cell)."""
    columns, part = [], np.zeros(config.num_rows)
    for name in config.numeric_names:
        location, spread, weight = world.uniform(0.5, 2.5), world.uniform(0.6, 1.4), world.standard_normal()
        missing = rows.random(config.num_rows) < _missing_share(world, config)
        normal = rows.standard_normal(config.num_rows)
        part += np.where(missing, 0.0, weight * normal)
        counts = np.floor(np.exp(location + spread * normal)).astype(np.int64)
        columns.append(pl.Series(name, counts).set(pl.Series(missing), None))
    return columns, part


def _draw_history(past: np.random.Generator, config: SyntheticConfig, sizes: dict[str, int]) -> NDArray[np.int64]:
    """Earlier values (rows, history_length), oldest first, padded with -1."""
    size, shape = sizes[config.history_of or ""], (config.num_rows, config.history_length)
    values = _draw_values(past, config.num_rows * config.history_length, size, config.zipf_exponent, 0.0).reshape(shape)
    lengths = past.integers(0, config.history_length, config.num_rows, endpoint=True)
    return np.where(np.arange(config.history_length) < lengths[:, None], values, -1)


def _nearness(embeddings: FloatArray, shown: NDArray[np.int64], history: NDArray[np.int64]) -> FloatArray:
    """max_h <e[shown], e[h]> of each row, 0 without a history."""
    products = np.einsum("nd,nld->nl", embeddings[shown], embeddings[history])
    nearest = np.where(history >= 0, products, -np.inf).max(axis=1)
    return np.where(history[:, 0] >= 0, nearest, 0.0)


def _as_list(words: pl.Series, history: NDArray[np.int64]) -> pl.Series:
    """Elements with `^` between them; null for an empty list."""
    cells = pl.DataFrame({"row": np.repeat(np.arange(len(history)), history.shape[1]), "value": history.ravel()})
    kept = cells.filter(pl.col("value") >= 0)
    joined = (
        kept.with_columns(word=words.gather(kept["value"])).group_by("row", maintain_order=True).agg(pl.col("word").str.join("^"))
    )
    rows = pl.DataFrame({"row": np.arange(len(history))})
    return rows.join(joined, on="row", how="left", maintain_order="left")["word"]


def _words(world: np.random.Generator, name: str, size: int) -> pl.Series:
    """Values as opaque words, as in anonymised logs; the leading letter distinguishes them from numbers. The last is null."""
    digits = max(2, len(f"{4 * size:x}"))
    words = [f"{name[0]}{code:0{digits}x}" for code in world.permutation(16**digits)[:size]]
    return pl.Series(name, [*words, None])


def _scaled(part: FloatArray, std: float) -> FloatArray:
    spread = part.std()
    return (part - part.mean()) * (std / spread) if spread > 0 else np.zeros_like(part)


def _bias_for(logits: FloatArray, ctr: float) -> float:
    """The bias at which the mean click probability is `ctr`, by bisection."""
    low, high = -60.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _sigmoid(logits + middle).mean() < ctr else (low, middle)
    return (low + high) / 2


def _sigmoid(logits: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))
