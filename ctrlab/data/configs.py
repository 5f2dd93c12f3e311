"""Settings of a dataset: its source files, the roles of its columns, and the split."""

from dataclasses import dataclass, field
from typing import Literal

from ctrlab.config import Config, option

Role = Literal["label", "categorical", "numeric", "timestamp", "list", "weight", "ignore"]
EmptyLabel = Literal["refuse", "drop", "negative"]
Transform = Literal["standard", "log", "quantile", "criteo"]
NumberFormat = Literal["1234.5", "1,234.5", "1.234,5", "1 234,5", "1234,5", "1'234.5"]
ListFormat = Literal["json", "numpy"]
FileFormat = Literal["auto", "csv", "tsv", "parquet", "jsonl", "json", "feather", "orc", "libsvm", "libffm"]
SplitMethod = Literal["random", "stratified", "time", "files"]

#: The splits of a dataset. `finetune` holds rows for fine-tuning after compression, which the first training does not use.
SPLIT_NAMES = ("train", "valid", "test", "finetune")

#: The roles of features.
FEATURE_ROLES: tuple[Role, ...] = ("categorical", "numeric", "timestamp", "list")


@dataclass(frozen=True, kw_only=True)
class SourceConfig(Config):
    """A raw table: one file, several files that are parts of it, or the files of a table that is already split.

    A path may be a folder of part files (its `key=value` folders become columns), a pattern such as `logs/*.csv`, an archive, or
    a file in an archive (`dac.tar.gz/train.txt`). What is unset is detected from the content.

    >>> SourceConfig(paths=("clicks.csv",)).format
    'auto'
    """

    paths: tuple[str, ...] = option(
        help="The file, folder or pattern; several are parts of one table, or the train, valid, test (and finetune) files."
    )
    format: FileFormat = option("auto", help="auto: detected, as compression (gz, zst, bz2, xz, zip, tar) always is.")
    encoding: str | None = option(None, advanced=True, help="Text: utf-8, utf-16, cp1252, gb18030, ...; unset: detected.")
    header: bool | None = option(None, help="Whether the first line holds column names; unset: detected.")
    delimiter: str | None = option(
        None,
        advanced=True,
        help=r"Between cells: one or more characters such as , :: \t \x01, or blanks; unset: detected.",
    )
    quote: Literal['"', "'", "none"] | None = option(
        None, advanced=True, help="The character that encloses cells; none: quotes are text; unset: detected."
    )
    skip_lines: int | None = option(
        None, minimum=0, advanced=True, help="Number of lines above the header or the first row; unset: detected."
    )
    comment: str | None = option(None, advanced=True, help="Lines that begin with it are skipped, such as #; unset: detected.")
    column_names: tuple[str, ...] = option((), advanced=True, help="Names for a file without a header, in order.")
    missing_words: tuple[str, ...] = option(
        (), advanced=True, help="Words that mean a missing cell, besides the usual ones such as NA, null and ?; case is ignored."
    )

    def faults(self) -> list[str]:
        faults = []
        if not self.paths:
            faults.append("paths must name at least one file")
        if self.delimiter == "":
            faults.append("delimiter must be one or more characters; leave it unset to detect it")
        if self.comment == "":
            faults.append("comment must be one or more characters; leave it unset for none")
        if self.encoding is not None and not _is_encoding(self.encoding):
            faults.append(f"encoding {self.encoding!r} is not known; use utf-8, utf-16, cp1252, gb18030 or another of Python's")
        if twice := _repeated(self.column_names):
            faults.append(f"column_names names {', '.join(twice)} more than once")
        return faults


@dataclass(frozen=True, kw_only=True)
class ColumnConfig(Config):
    """Role and settings of one raw column. Settings of other roles are ignored.

    >>> ColumnConfig(name="site", role="categorical", min_count=5).role
    'categorical'
    """

    name: str = option(help="The column's name in the file.")
    role: Role = option(
        "ignore", help="label, categorical, numeric, timestamp, list, weight (impressions that the row stands for), or ignore."
    )
    min_count: int = option(
        1,
        minimum=1,
        label="Minimum count",
        help="Categorical, list: rarer values of the training rows share the out-of-vocabulary id.",
    )
    transform: Transform = option(
        "standard",
        help="Numeric: standard = zero mean and unit variance; log = sign(x) log(1+|x|), standardised; quantile = buckets with "
        "equally many rows; criteo = bucket floor(log(x)^2).",
    )
    num_buckets: int = option(32, minimum=2, maximum=10_000, label="Buckets", help="Numeric, quantile: number of buckets.")
    timestamp_format: str | None = option(
        None,
        advanced=True,
        label="Times as",
        help="Timestamp: iso, dd/mm/yyyy, mm/dd/yyyy, dd/month/yyyy, yyyymmddhh, yymmddhh, epoch_s, epoch_ms, epoch_us or "
        "epoch_ns, or a pattern such as %d/%m/%Y %H:%M; unset: detected.",
    )
    separator: str | None = option(
        None, help="List: text between two elements, such as ^ or |; unset: the column holds lists of a Parquet file."
    )
    list_format: ListFormat | None = option(
        None,
        advanced=True,
        label="Lists as",
        help='List: json = [3, 24], ["a", "b"] or Python\'s (3, 24); numpy = [3 24]; unset: split at the separator.',
    )
    max_length: int = option(
        50,
        minimum=1,
        maximum=10_000,
        label="Longest list",
        help="List: largest number of elements; of a longer list the last ones are kept, which are the most recent.",
    )
    number_format: NumberFormat = option(
        "1234.5",
        label="Numbers as",
        help="Numeric: decimal mark and mark of thousands in the file; signs of currency and % are always accepted.",
    )
    trim: bool = option(
        True, advanced=True, label="Trim blanks", help="Categorical: whether blanks at the ends of a cell are removed."
    )
    shares: str | None = option(
        None,
        label="Shares ids with",
        help="List: the categorical column whose ids and embedding table its elements share; unset: it has ids of its own.",
    )
    positive: tuple[str, ...] = option(
        (), help="Label: the cell texts that mean a click, all others mean none; empty: 0/1, -1/1, true/false or yes/no."
    )
    threshold: float | None = option(None, help="Label: a number at or above it is a click, for example 4 for ratings.")
    empty_label: EmptyLabel = option(
        "refuse", help="Label, empty cells: refuse the file, drop their rows, or negative = they are no clicks."
    )
    soft: bool = option(False, help="Label: the cell is a probability or a share of clicks, 0 to 1 or 0 % to 100 %.")
    label_total: str | None = option(
        None, help="Label: the column of impressions, where the label counts clicks; the row then weighs its impressions."
    )

    def faults(self) -> list[str]:
        faults = []
        if self.separator == "":
            faults.append("separator must hold at least one character; leave it unset for lists in a Parquet file")
        readings = {
            "positive": bool(self.positive),
            "threshold": self.threshold is not None,
            "soft": self.soft,
            "label_total": self.label_total is not None,
        }
        if sum(readings.values()) > 1:
            given = " and ".join(name for name, used in readings.items() if used)
            faults.append(f"{given} read the label {self.name} in two ways; give one of them")
        if self.label_total == self.name:
            faults.append(f"label_total must name another column than the label {self.name}")
        return faults

    @property
    def is_soft(self) -> bool:
        """Whether the label is a share between 0 and 1 rather than a click or none."""
        return self.soft or self.label_total is not None


@dataclass(frozen=True, kw_only=True)
class SplitConfig(Config):
    """How rows are split into train, valid, test and finetune.

    >>> SplitConfig(method="stratified", train=0.7, valid=0.1, test=0.1, finetune=0.1).share("finetune")
    0.1
    >>> SplitConfig(train=0.9, valid=0.2)
    Traceback (most recent call last):
    ctrlab.errors.ConfigError: ...
    """

    method: SplitMethod = option(
        "random", help="random; stratified = equal CTR in each part; time = oldest rows train; files = already split."
    )
    train: float = option(0.8, minimum=0.0, maximum=1.0, step=0.05, help="Share of rows to train on.")
    valid: float = option(0.1, minimum=0.0, maximum=1.0, step=0.05, help="Share of rows that select the best checkpoint.")
    test: float = option(0.1, minimum=0.0, maximum=1.0, step=0.05, help="Share of rows for the final evaluation only.")
    finetune: float = option(
        0.0,
        minimum=0.0,
        maximum=1.0,
        step=0.05,
        help="Share of rows held out for fine-tuning after compression: CTR models overfit on rows they were trained on.",
    )
    time_column: str | None = option(None, help="Split by time: the column of timestamps.")
    seed: int = option(0, minimum=0, maximum=2**31 - 1, help="Seed of the random assignment.")

    def share(self, split: str) -> float:
        """The configured share of one of `SPLIT_NAMES`."""
        return self.fractions[SPLIT_NAMES.index(split)]

    @property
    def fractions(self) -> tuple[float, ...]:
        """Shares in the order of `SPLIT_NAMES`."""
        return tuple(getattr(self, name) for name in SPLIT_NAMES)

    def faults(self) -> list[str]:
        if self.method == "files":
            return []
        faults = []
        total = sum(self.fractions)
        if abs(total - 1.0) > 1e-6:
            faults.append(f"train, valid, test and finetune must add up to 1, got {total:g}; finetune=0 keeps no rows aside")
        if self.train <= 0 or self.valid <= 0:
            faults.append("train and valid must be above 0")
        if self.method == "time" and not self.time_column:
            faults.append("time_column must name a column when the split is by time")
        return faults


#: The split of own data unless a person chooses another: a tenth is held out for fine-tuning after compression.
NEW_DATA_SPLIT = SplitConfig(method="stratified", train=0.7, valid=0.1, test=0.1, finetune=0.1)


@dataclass(frozen=True, kw_only=True)
class DatasetConfig(Config):
    """All settings of an encoded dataset.

    >>> columns = (ColumnConfig(name="click", role="label"), ColumnConfig(name="site", role="categorical"))
    >>> config = DatasetConfig(name="ads", source=SourceConfig(paths=("clicks.csv",)), columns=columns)
    >>> config.label, config.split.method
    ('click', 'random')
    """

    name: str = option(help="Shown in lists.")
    source: SourceConfig = option(help="The raw file.")
    columns: tuple[ColumnConfig, ...] = option(help="One entry per column; columns not listed are ignored.")
    split: SplitConfig = field(default_factory=SplitConfig)

    @property
    def label(self) -> str:
        """Name of the label column."""
        return next(column.name for column in self.columns if column.role == "label")

    @property
    def label_column(self) -> ColumnConfig:
        """The label column with its settings."""
        return next(column for column in self.columns if column.role == "label")

    @property
    def weight(self) -> str | None:
        """The column of the rows' weights; None if every row counts once."""
        weights = [column.name for column in self.columns if column.role == "weight"]
        return self.label_column.label_total or next(iter(weights), None)

    @property
    def features(self) -> tuple[ColumnConfig, ...]:
        """The columns with the role of a feature, in order."""
        return tuple(column for column in self.columns if column.role in FEATURE_ROLES)

    def faults(self) -> list[str]:
        faults = []
        labels = [column.name for column in self.columns if column.role == "label"]
        if len(labels) != 1:
            faults.append(f"exactly one column must have the role label, got {', '.join(labels) or 'none'}; choose one")
        if len(labels) == 1:
            faults += self._weight_faults()
        if not self.features:
            faults.append("no column is left to learn from; make at least one categorical, numeric, timestamp or list")
        faults += self._sharing_faults()
        if twice := _repeated([column.name for column in self.columns]):
            faults.append(f"columns lists {', '.join(twice)} more than once")
        by_files = self.split.method == "files"
        if by_files and not 2 <= len(self.source.paths) <= len(SPLIT_NAMES):
            faults.append(
                f"a split by files needs 2 to {len(SPLIT_NAMES)} paths (train, valid, ...), got {len(self.source.paths)}"
            )
        return faults

    def _weight_faults(self) -> list[str]:
        weights = {column.name for column in self.columns if column.role == "weight"} | {self.label_column.label_total} - {None}
        if len(weights) > 1:
            return [f"rows have one weight, got {', '.join(sorted(map(str, weights)))}; keep the column of impressions"]
        return []

    def _sharing_faults(self) -> list[str]:
        categorical = [column.name for column in self.columns if column.role == "categorical"]
        return [
            f"list {column.name} shares the ids of {column.shares!r}, which is no categorical column; "
            f"choose {', '.join(categorical) or 'none, for there is none'}"
            for column in self.columns
            if column.role == "list" and column.shares is not None and column.shares not in categorical
        ]


def _is_encoding(name: str) -> bool:
    try:
        return bool("a".encode(name))
    except (LookupError, ValueError):
        return False


def _repeated(names: "tuple[str, ...] | list[str]") -> list[str]:
    return sorted({name for name in names if list(names).count(name) > 1}) if len(set(names)) < len(names) else []
