"""Description of a public dataset whose file format ctrlab knows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ctrlab.data.configs import NEW_DATA_SPLIT, ColumnConfig, DatasetConfig, SourceConfig, SplitConfig
from ctrlab.data.tables.columns import ColumnInspection
from ctrlab.data.tables.inspect import TableInspection, inspect_table
from ctrlab.data.tables.notes import Note
from ctrlab.data.tables.reader import open_table
from ctrlab.errors import ConfigError, DataError

NO_CHECKSUM = "the publisher gives none"

#: From source and split to the dataset config; known datasets differ in their columns only.
ConfigMaker = Callable[[SourceConfig, SplitConfig], DatasetConfig]
#: From the source of `ConfigMaker` to the one that fits the file, which may have a header or another delimiter.
SourceFinder = Callable[[SourceConfig], SourceConfig]
#: Whether an inspected table has the cells of a known dataset.
Likeness = Callable[[TableInspection], bool]


def _as_given(source: SourceConfig) -> SourceConfig:
    return source


@dataclass(frozen=True, kw_only=True)
class KnownDataset:
    """A public dataset in a known format. ctrlab does not download it, because its licence needs a person's consent.

    address: page or URL of the publisher. files: which files to download and give to `config_for`.
    size: of the download. size_source, checksum_source: origin of these figures. checksums: MD5 of the unpacked files; empty if
        none is published. num_rows: labelled rows. num_files: number of files that `config_for` takes.
    find_source: the source that fits a given file, by its content. is_like: whether a table's cells are those of this dataset,
        with or without column names; None where names are enough.
    """

    name: str
    title: str
    description: str
    address: str
    files: str
    size: str
    size_source: str
    num_rows: int
    licence: str
    make_config: ConfigMaker = field(repr=False)
    find_source: SourceFinder = field(default=_as_given, repr=False)
    is_like: Likeness | None = field(default=None, repr=False)
    checksums: dict[str, str] = field(default_factory=dict)
    checksum_source: str = NO_CHECKSUM
    num_files: int = 1

    @property
    def checksum(self) -> str:
        """One line of file names and MD5 sums, or that there are none."""
        return ", ".join(f"{file} md5 {digest}" for file, digest in self.checksums.items()) or NO_CHECKSUM

    def config_for(self, paths: str | Sequence[str], split: SplitConfig | None = None) -> DatasetConfig:
        """The config for this dataset's files.

        Args:
            paths: the raw file; or the train, valid and test files, where the dataset comes split.
            split: by default the given files, or a stratified split of the single file that keeps a tenth aside for fine-tuning.

        Raises:
            ConfigError: the number of files is not `num_files`.
        """
        paths = (str(paths),) if isinstance(paths, str) or not isinstance(paths, Sequence) else tuple(map(str, paths))
        if len(paths) != self.num_files:
            wanted = "one file" if self.num_files == 1 else f"{self.num_files} files (train, valid, test)"
            raise ConfigError(f"{self.title} takes {wanted}, got {len(paths)}; {self.files}")
        if split is None:
            split = SplitConfig(method="files") if self.num_files > 1 else NEW_DATA_SPLIT
        return self.make_config(SourceConfig(paths=paths), split)

    def inspect(self, paths: str | Sequence[str], max_rows: int = 200_000) -> TableInspection:
        """Inspect this dataset's files and check that they are in its format.

        Raises:
            DataError: a file cannot be read or is not in the format. The message names expected columns and quotes no cell: the
                file may be somebody's secret that was given by mistake or on purpose.
        """
        config = self.config_for(paths)
        source = self.find_source(config.source)
        for part, path in enumerate(source.paths):
            present = open_table(source, part=part).column_names
            if missing := [column.name for column in config.columns if column.name not in present]:
                raise self._foreign(path, f"has no column {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}")
        inspection = inspect_table(source, max_rows)
        if config.label not in [found.column for found in inspection.label_candidates if found.plain]:
            raise self._foreign(config.source.paths[0], f"holds other values than 0 and 1 in {config.label}")
        for column in config.columns:
            found = inspection.column[column.name]
            if column.role == "numeric" and found.minimum is None and found.distinct:
                raise self._foreign(config.source.paths[0], f"holds texts in {column.name}")
        return inspection

    def _foreign(self, path: str, reason: str) -> DataError:
        return DataError(f"{Path(path).name} is not in the format of {self.title} (it {reason}); {self.files}")

    def recognises(self, inspection: TableInspection) -> bool:
        """Whether an inspected table has this dataset's columns: by their names, or, without names, by their cells."""
        config = self.config_for([str(number) for number in range(self.num_files)])
        names = [column.name for column in config.columns]
        if not set(names) <= set(inspection.column) or (self.is_like is not None and not self.is_like(inspection)):
            return False
        return inspection.label == config.label and all(
            _fits(inspection.column[column.name], column) for column in config.columns if column.role in ("numeric", "timestamp")
        )

    def adopted(self, inspection: TableInspection) -> TableInspection:
        """A recognised table's inspection with this dataset's usual roles and settings, and a note that says so."""
        config = self.config_for([str(number) for number in range(self.num_files)])
        usual = {column.name: column for column in config.columns}
        columns = tuple(
            replace(
                found,
                role=usual[found.name].role,
                transform=usual[found.name].transform,
                timestamp_format=usual[found.name].timestamp_format or found.timestamp_format,
                reason=f"as usual for {self.title}; {found.reason}",
            )
            if found.name in usual
            else found
            for found in inspection.columns
        )
        text = f"the columns are those of {self.title}; its usual roles and settings are used"
        note = Note("known", None, text, "info", "change the roles if it is another table")
        return replace(inspection, columns=columns, notes=(*inspection.notes, note))


def _fits(found: ColumnInspection, usual: ColumnConfig) -> bool:
    """Whether a column's cells allow a role that not all cells allow."""
    if usual.role == "timestamp":
        return found.role == "timestamp"
    return found.minimum is not None or not found.distinct
