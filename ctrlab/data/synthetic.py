"""Generates a seeded, Criteo-like click log with known true ranks.

Every categorical value k of field f has a true embedding e_f[k] = B_f z_f[k], where B_f (D, r_f) is an orthonormal basis of a
random subspace, so the field's true table has rank r_f. The log-odds of a click are those of a factorization machine:

    logit = bias + sum_f a_f[k_f] + sum_v w_v x_v + sum_{f<g} <e_f[k_f], e_g[k_g]>

Both parts of a field are scaled by its strength; at strength 0 the field has no influence at all, and its table no rank.

With `history_of` each row gets a behaviour list of earlier values of that field, and the log-odds get the term
max_h <e_f[k_f], e_f[h]>, the similarity of the shown value to its nearest neighbour in the list (0 for an empty list). An average
over the list does not contain it: a model has to compare the elements with the shown value. With `time_name` rows are sorted by a
time, and the log-odds get a part that depends on the hour of the day. With `leak_name` there is a column that is known only after
the click: a feature that no model may use.

Values follow a Zipf-Mandelbrot distribution (a head and a long tail), some are missing (a missing value is one more k), numbers
are skewed counts, and clicks are drawn from the logit: no model can reach an AUC of 1, and the best possible AUC,
`SyntheticTable.best_auc`, is known.
"""

import gzip
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.config import Config, option

FloatArray = NDArray[np.float64]
IdArray = NDArray[np.int64]
Generator = np.random.Generator

#: The first instant of the log, a Monday.
_FIRST_TIME = datetime(2026, 3, 2)
_SECONDS_PER_DAY = 86_400
#: The hour of the day at which people click most, and that at which most rows are logged.
_BEST_HOUR, _BUSIEST_HOUR = 21, 15
#: Shares of clicks without a measured stay, and of other rows with an entry: the leak is not perfect, as in real logs.
_LEAK_MISSED, _LEAK_FALSE = 0.04, 0.002


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig(Config):
    """Shape and difficulty of a synthetic log. The defaults generate the sample that ships with ctrlab."""

    num_rows: int = option(100_000, minimum=100, maximum=100_000_000, help="Rows to draw.")
    seed: int = option(7, minimum=0, maximum=2**31 - 1, help="Seed of the true embeddings and of the rows.")
    field_names: tuple[str, ...] = option(
        ("device", "region", "site", "placement", "advertiser", "campaign", "creative", "user", "page"),
        help="Categorical fields.",
    )
    cardinalities: tuple[int, ...] = option(
        (6, 30, 400, 12, 120, 900, 4000, 12_000, 500),
        minimum=2,
        maximum=10_000_000,
        help="Number of values of each categorical field.",
    )
    ranks: tuple[int, ...] = option(
        (1, 2, 2, 1, 3, 3, 2, 1, 0), minimum=0, maximum=64, help="Rank of each field's true table; 0: the field has no influence."
    )
    strengths: tuple[float, ...] = option(
        (1.0, 1.0, 0.6, 1.0, 0.8, 0.4, 0.3, 0.2, 0.0),
        minimum=0.0,
        maximum=10.0,
        help="Scale of each field's influence: long tails have too few rows a value to learn much from.",
    )
    latent_dim: int = option(3, minimum=1, maximum=64, help="Dimension D of the true embeddings.")
    numeric_names: tuple[str, ...] = option(
        ("ad_age_hours", "impressions", "past_clicks", "bid_cents"), help="Numeric columns: skewed counts."
    )
    zipf_exponent: float = option(
        1.2,
        minimum=0.0,
        maximum=3.0,
        help="Exponent of the Zipf-Mandelbrot distribution: larger, the more the frequent values dominate.",
    )
    missing_share: float = option(0.08, minimum=0.0, maximum=0.9, help="Mean share of empty cells; it differs by column.")
    missing_words: tuple[str, ...] = option(
        ("n/a", "-"),
        help="Texts of missing numbers, one for each of the first numeric columns that have any; other missing cells are empty.",
    )
    ctr: float = option(0.2, minimum=0.001, maximum=0.999, help="Click-through rate.")
    first_order_std: float = option(
        0.5, minimum=0.0, maximum=10.0, help="Standard deviation of the first-order part of the log-odds."
    )
    numeric_std: float = option(0.5, minimum=0.0, maximum=10.0, help="Standard deviation of the numeric part of the log-odds.")
    interaction_std: float = option(
        1.1, minimum=0.0, maximum=10.0, help="Standard deviation of the low-rank interaction in the log-odds."
    )

    history_of: str | None = option(
        "campaign", help="Add a behaviour list of this field's values, <field>_history, on which the click depends; unset: none."
    )
    history_length: int = option(8, minimum=1, maximum=1000, help="Longest behaviour list.")
    history_std: float = option(
        0.5, minimum=0.0, maximum=10.0, help="Standard deviation of the behaviour list's part of the log-odds."
    )
    time_name: str | None = option("time", help="Name of the column of times, by which rows are sorted; unset: none.")
    days: int = option(14, minimum=1, maximum=10_000, help="Days that the times span.")
    hour_std: float = option(
        0.25,
        minimum=0.0,
        maximum=10.0,
        help="Standard deviation of the part of the log-odds that depends on the hour of the day.",
    )
    leak_name: str | None = option(
        "seconds_on_page", help="Name of a column that is known only after the click, which models must not use; unset: none."
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
        lengths = {len(self.field_names), len(self.cardinalities), len(self.ranks), len(self.strengths)}
        if len(lengths) > 1 or not self.field_names:
            faults.append("field_names, cardinalities, ranks and strengths must list the same fields, at least one")
        if self.ranks and max(self.ranks) > self.latent_dim:
            faults.append(f"ranks must be at most latent_dim={self.latent_dim}, got {max(self.ranks)}")
        if self.history_of is not None and self.history_of not in self.field_names:
            faults.append(f"history_of must be one of {', '.join(self.field_names)}, got {self.history_of}")
        optional = [name for name in (self.history_name, self.time_name, self.leak_name) if name is not None]
        names = (*self.field_names, *self.numeric_names, "click", *optional)
        if len(set(names)) < len(names):
            faults.append("column names must differ from each other and from click")
        return faults


@dataclass(frozen=True)
class SyntheticTable:
    """A generated log with its ground truth.

    frame: the raw table: click, time, numeric and categorical columns, the behaviour list, oldest first, with `^` between its
        elements, and the leak; null where a cell is empty.
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
    ((1000, 17), (901, 3))
    """
    config = config or SyntheticConfig()
    # Independent streams: more rows, other numeric columns, a list, a time or a leak do not change the true embeddings.
    truth, rows, clicks, lists, times, leaks = (np.random.default_rng((config.seed, stream)) for stream in range(6))
    sizes = dict(zip(config.field_names, config.cardinalities, strict=True))
    picks = {
        name: _draw_values(rows, config.num_rows, size, config.zipf_exponent, _missing_share(truth, config))
        for name, size in sizes.items()
    }
    embeddings = {
        name: strength * _embeddings(truth, np.bincount(pick, minlength=sizes[name] + 1), rank, config.latent_dim)
        for (name, pick), rank, strength in zip(picks.items(), config.ranks, config.strengths, strict=True)
    }
    numbers, numeric_part = _draw_numbers(truth, rows, config)
    log_odds = (
        _scaled(_first_order(truth, picks, config), config.first_order_std)
        + _scaled(numeric_part, config.numeric_std)
        + _scaled(_interaction([embeddings[name][pick] for name, pick in picks.items()]), config.interaction_std)
    )
    texts = {name: _texts(truth, name, sizes[name]) for name in picks}
    columns = [*numbers, *(texts[name].gather(pick) for name, pick in picks.items())]
    if config.history_of:
        history = _draw_history(lists, config, sizes)
        nearness = _nearness(embeddings[config.history_of], picks[config.history_of], history)
        log_odds = log_odds + _scaled(nearness, config.history_std)
        columns = [*columns, _as_list(texts[config.history_of], history).alias(f"{config.history_name}")]
    if config.time_name:
        time, hours = _draw_times(times, config)
        log_odds = log_odds + _scaled(np.sin((hours - _BEST_HOUR + 6) * np.pi / 12), config.hour_std)
        columns = [time, *columns]
    probabilities = _sigmoid(log_odds + _bias_for(log_odds, config.ctr))
    clicked = clicks.random(config.num_rows) < probabilities
    if config.leak_name:
        columns = [*columns, _draw_leak(leaks, clicked, config.leak_name)]
    return SyntheticTable(pl.DataFrame([pl.Series("click", clicked.astype(np.int8)), *columns]), probabilities, embeddings)


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


def _missing_share(truth: Generator, config: SyntheticConfig) -> float:
    """Random share of empty cells of a column: some columns are full, some often empty, as in real logs."""
    return float(np.clip(config.missing_share * truth.exponential(), 0.0, 0.9)) if truth.random() < 0.7 else 0.0


def _draw_values(rows: Generator, num_rows: int, size: int, exponent: float, missing: float) -> IdArray:
    """Zipf-Mandelbrot values 0..size-1, by falling frequency; `size` means an empty cell."""
    # The offset grows with the size: no single user makes a large share of a log.
    weights = 1.0 / (np.arange(size) + 2.0 + size / 50) ** exponent
    picks = np.searchsorted(np.cumsum(weights / weights.sum()), rows.random(num_rows)).clip(0, size - 1)
    return np.where(rows.random(num_rows) < missing, size, picks)


def _embeddings(truth: Generator, counts: IdArray, rank: int, latent_dim: int) -> FloatArray:
    """True embeddings (size + 1, D) of exactly `rank`, centred and whitened within their subspace over the drawn rows."""
    if not rank:
        return np.zeros((len(counts), latent_dim))
    basis = np.linalg.qr(truth.standard_normal((latent_dim, rank)))[0]
    latent = truth.standard_normal((len(counts), rank))
    latent -= np.average(latent, axis=0, weights=counts)
    scatter = (latent * counts[:, None]).T @ latent / counts.sum()
    return np.asarray(latent @ np.linalg.inv(np.linalg.cholesky(scatter)).T @ basis.T)


def _first_order(truth: Generator, picks: dict[str, IdArray], config: SyntheticConfig) -> FloatArray:
    """The sum of one weight a value (rows,)."""
    fields = zip(picks.values(), config.cardinalities, config.strengths, strict=True)
    return np.asarray(np.sum([strength * truth.standard_normal(size + 1)[pick] for pick, size, strength in fields], axis=0))


def _interaction(vectors: list[FloatArray]) -> FloatArray:
    """Sum over field pairs of inner products, by the square-of-sum identity."""
    total = np.sum(vectors, axis=0)
    squares = np.sum([(vector**2).sum(axis=1) for vector in vectors], axis=0)
    return np.asarray(0.5 * ((total**2).sum(axis=1) - squares))


def _draw_numbers(truth: Generator, rows: Generator, config: SyntheticConfig) -> tuple[list[pl.Series], FloatArray]:
    """Skewed non-negative counts with missing cells, and their part of the log-odds (0 for a missing cell)."""
    words = iter(config.missing_words)
    columns, part = [], np.zeros(config.num_rows)
    for name in config.numeric_names:
        location, spread, weight = truth.uniform(0.5, 2.5), truth.uniform(0.6, 1.4), truth.standard_normal()
        missing = rows.random(config.num_rows) < _missing_share(truth, config)
        normal = rows.standard_normal(config.num_rows)
        part += np.where(missing, 0.0, weight * normal)
        counts = pl.Series(name, np.floor(np.exp(location + spread * normal)).astype(np.int64))
        word = next(words, None) if missing.any() else None
        columns.append((counts if word is None else counts.cast(pl.String)).set(pl.Series(missing), word))
    return columns, part


def _draw_times(times: Generator, config: SyntheticConfig) -> tuple[pl.Series, FloatArray]:
    """Ascending times, fewer at night, as a column of texts; and the hour of the day of each row, 0 to 24."""
    weights = 1.2 + np.sin((np.arange(24) - _BUSIEST_HOUR + 6) * np.pi / 12)
    hours = times.choice(24, config.num_rows, p=weights / weights.sum())
    days = times.integers(0, config.days, config.num_rows)
    seconds = np.sort(days * _SECONDS_PER_DAY + hours * 3600 + times.integers(0, 3600, config.num_rows))
    since = pl.Series(config.time_name, seconds * 1_000_000).cast(pl.Duration("us"))
    return (since + _FIRST_TIME).dt.strftime("%Y-%m-%d %H:%M:%S"), (seconds % _SECONDS_PER_DAY) / 3600


def _draw_leak(leaks: Generator, clicked: NDArray[np.bool_], name: str) -> pl.Series:
    """Seconds on the advertiser's page: 0 without a click, but for a few rows; a few clicks were not measured either."""
    seconds = np.ceil(np.exp(3.0 + leaks.standard_normal(len(clicked)))).astype(np.int64)
    measured = np.where(clicked, leaks.random(len(clicked)) >= _LEAK_MISSED, leaks.random(len(clicked)) < _LEAK_FALSE)
    return pl.Series(name, np.where(measured, seconds, 0))


def _draw_history(past: Generator, config: SyntheticConfig, sizes: dict[str, int]) -> IdArray:
    """Earlier values (rows, history_length), oldest first, padded with -1."""
    size, shape = sizes[config.history_of or ""], (config.num_rows, config.history_length)
    values = _draw_values(past, config.num_rows * config.history_length, size, config.zipf_exponent, 0.0).reshape(shape)
    lengths = past.integers(0, config.history_length, config.num_rows, endpoint=True)
    return np.where(np.arange(config.history_length) < lengths[:, None], values, -1)


def _nearness(embeddings: FloatArray, shown: IdArray, history: IdArray) -> FloatArray:
    """max_h <e[shown], e[h]> of each row, 0 without a history."""
    products = np.einsum("nd,nld->nl", embeddings[shown], embeddings[history])
    nearest = np.where(history >= 0, products, -np.inf).max(axis=1)
    return np.where(history[:, 0] >= 0, nearest, 0.0)


def _as_list(texts: pl.Series, history: IdArray) -> pl.Series:
    """Elements with `^` between them; null for an empty list."""
    cells = pl.DataFrame({"row": np.repeat(np.arange(len(history)), history.shape[1]), "value": history.ravel()})
    kept = cells.filter(pl.col("value") >= 0)
    joined = (
        kept.with_columns(word=texts.gather(kept["value"])).group_by("row", maintain_order=True).agg(pl.col("word").str.join("^"))
    )
    rows = pl.DataFrame({"row": np.arange(len(history))})
    return rows.join(joined, on="row", how="left", maintain_order="left")["word"]


def _texts(truth: Generator, name: str, size: int) -> pl.Series:
    """Values as opaque words, as in anonymised logs; the leading letter distinguishes them from numbers. The last is null."""
    digits = max(2, len(f"{4 * size:x}"))
    words = [f"{name[0]}{code:0{digits}x}" for code in truth.permutation(16**digits)[:size]]
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
