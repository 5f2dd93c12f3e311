"""Description of a public dataset whose file format ctrlab knows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctrlab.data.configs import DatasetConfig, SourceConfig, SplitConfig
from ctrlab.data.tables.inspect import TableInspection, inspect_table
from ctrlab.data.tables.reader import open_table
from ctrlab.errors import ConfigError, DataError

NO_CHECKSUM = "the publisher gives none"

#: From source and split to the dataset config; known datasets differ in their columns only.
ConfigMaker = Callable[[SourceConfig, SplitConfig], DatasetConfig]


@dataclass(frozen=True, kw_only=True)
class KnownDataset:
    """A public dataset in a known format. ctrlab does not download it, because its licence needs a person's consent.

    address: page or URL of the publisher. files: which files to download, unpack and give to `config_for`.
    size: of the download. size_source, checksum_source: origin of these figures. checksums: MD5 of the unpacked files; empty if
        none is published. num_rows: labelled rows. num_files: number of files that `config_for` takes.
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
            split: by default the given files, or a random split of the single file.

        Raises:
            ConfigError: the number of files is not `num_files`.
        """
        paths = (str(paths),) if isinstance(paths, str) or not isinstance(paths, Sequence) else tuple(map(str, paths))
        if len(paths) != self.num_files:
            wanted = "one file" if self.num_files == 1 else f"{self.num_files} files (train, valid, test)"
            raise ConfigError(f"{self.title} takes {wanted}, got {len(paths)}; {self.files}")
        if split is None:
            split = SplitConfig(method="files") if self.num_files > 1 else SplitConfig(method="random")
        return self.make_config(SourceConfig(paths=paths), split)

    def inspect(self, paths: str | Sequence[str], max_rows: int = 200_000) -> TableInspection:
        """Inspect this dataset's files and check that they are in its format.

        Raises:
            DataError: a file cannot be read or is not in the format. The message names expected columns and quotes no cell: the
                file may be somebody's secret that was given by mistake or on purpose.
        """
        config = self.config_for(paths)
        for part, path in enumerate(config.source.paths):
            present = open_table(config.source, part=part).column_names
            if missing := [column.name for column in config.columns if column.name not in present]:
                raise self._foreign(path, f"has no column {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}")
        inspection = inspect_table(config.source, max_rows)
        if config.label not in [found.column for found in inspection.label_candidates if found.plain]:
            raise self._foreign(config.source.paths[0], f"holds other values than 0 and 1 in {config.label}")
        for column in config.columns:
            found = inspection.column[column.name]
            if column.role == "numeric" and found.minimum is None and found.distinct:
                raise self._foreign(config.source.paths[0], f"holds texts in {column.name}")
        return inspection

    def _foreign(self, path: str, reason: str) -> DataError:
        return DataError(f"{Path(path).name} is not in the format of {self.title} (it {reason}); {self.files}")
