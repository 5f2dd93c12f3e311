"""Description of a public dataset whose file format ctrlab knows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ctrlab.data.configs import DatasetConfig, SourceConfig, SplitConfig
from ctrlab.errors import ConfigError

NO_CHECKSUM = "the publisher gives none"

#: From source and split to the dataset: what differs between known datasets is only their columns.
ConfigMaker = Callable[[SourceConfig, SplitConfig], DatasetConfig]


@dataclass(frozen=True, kw_only=True)
class KnownDataset:
    """A public dataset in a known format. ctrlab never downloads it: licences want a person's consent.

    address: where its publisher gives it. files: what to download and unpack, and which of it to choose here.
    size: of the download. size_source, checksum_source: who says so. checksums: MD5 of the unpacked files, empty
    where none is published. num_rows: labelled rows. num_files: how many files `config_for` takes.
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
        """One line for the page: file and MD5, or that there is none."""
        return ", ".join(f"{file} md5 {digest}" for file, digest in self.checksums.items()) or NO_CHECKSUM

    def config_for(self, paths: str | Sequence[str], split: SplitConfig | None = None) -> DatasetConfig:
        """The settings that fit this dataset's files.

        Args:
            paths: the raw file; or the train, valid and test files, where the dataset comes split.
            split: how to split; by default as the dataset's users do.

        Raises:
            ConfigError: another number of files than the dataset has.
        """
        paths = (str(paths),) if isinstance(paths, str) or not isinstance(paths, Sequence) else tuple(map(str, paths))
        if len(paths) != self.num_files:
            wanted = "one file" if self.num_files == 1 else f"{self.num_files} files (train, valid, test)"
            raise ConfigError(f"{self.title} takes {wanted}, got {len(paths)}; {self.files}")
        if split is None:
            split = SplitConfig(method="files") if self.num_files > 1 else SplitConfig(method="random")
        return self.make_config(SourceConfig(paths=paths), split)
