import gzip
import hashlib
import tarfile

import numpy as np
import polars as pl
import pytest

from ctrlab.data.catalog import DATASETS
from ctrlab.data.catalog.criteo import COLUMN_NAMES, NUMERIC_NAMES
from ctrlab.data.catalog.recognise import inspect_and_recognise
from ctrlab.data.configs import SPLIT_NAMES, SourceConfig
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.data.encoding.encoder import FieldEncoder
from ctrlab.data.encoding.splits import SplitAssigner
from ctrlab.data.tables.draft import draft_config
from ctrlab.errors import ConfigError, DataError, UnknownNameError


def test_every_known_dataset_has_an_address_a_size_and_a_licence():
    assert {"criteo", "avazu", "frappe_x1", "movielens"} <= set(DATASETS.names())
    for known in DATASETS:
        assert known.address.startswith("https://")
        assert all((known.title, known.description, known.files, known.size, known.size_source, known.licence, known.checksum))
        assert all(len(digest) == 32 and int(digest, 16) for digest in known.checksums.values())
        assert bool(known.checksums) == (known.checksum != "the publisher gives none")


def test_every_known_dataset_gives_settings_that_survive_json():
    for known in DATASETS:
        config = known.config_for([f"{i}.csv" for i in range(known.num_files)])
        assert config.split.method == ("files" if known.num_files > 1 else "stratified")
        assert type(config).from_json(config.to_json()) == config


def test_a_wrong_number_of_files_and_an_unknown_name_are_refused():
    with pytest.raises(ConfigError, match="takes 3 files"):
        DATASETS["frappe_x1"].config_for("one.csv")
    with pytest.raises(UnknownNameError, match="criteo, avazu"):
        DATASETS["netflix"]


def test_movielens_files_encode(tmp_path):
    for part, name in enumerate(("train", "valid", "test")):
        rows = [(i % 2, i % 7, (i + part) % 5, i % 3) for i in range(50)]
        pl.DataFrame(rows, schema=["label", "user_id", "item_id", "tag_id"], orient="row").write_csv(tmp_path / f"{name}.csv")
    config = DATASETS["movielens"].config_for([str(tmp_path / f"{name}.csv") for name in ("train", "valid", "test")])
    assert encode_dataset(config, tmp_path / "encoded").schema.field_dims == (9, 7, 5)


def criteo_rows(rows=120):
    """A table in the format of Criteo's display advertising log."""
    counts = {f"I{i}": [str(row * i % 40) if row % 7 else None for row in range(rows)] for i in range(1, 14)}
    hashes = {f"C{i}": [f"{(row * 7919 + i) % 12:08x}" for row in range(rows)] for i in range(1, 27)}
    return pl.DataFrame({"label": [str(row % 3 // 2) for row in range(rows)]} | counts | hashes)


@pytest.mark.parametrize("separator", [",", "\t"])
@pytest.mark.parametrize("header", [True, False])
def test_criteo_is_read_and_recognised_with_and_without_a_header(tmp_path, separator, header):
    path = str(tmp_path / "train.txt")
    criteo_rows().write_csv(path, separator=separator, include_header=header)
    known = DATASETS["criteo"]
    for inspection in (known.inspect(path), inspect_and_recognise(SourceConfig(paths=(path,)))):
        assert tuple(inspection.column) == COLUMN_NAMES and inspection.rows == 120
    assert inspection.notes[-1].kind == "known" and "Criteo display advertising" in inspection.notes[-1].text
    transforms = {name: (column.role, column.transform) for name, column in inspection.column.items()}
    assert all(transforms[name] == ("numeric", "criteo") for name in NUMERIC_NAMES)
    dataset = encode_dataset(draft_config(inspection, "t"), tmp_path / "drafted")
    assert len(dataset.schema.field_names) == 39 and sum(dataset.summary.clicks.values()) == 40


def test_the_archive_of_criteo_is_read_as_it_is_downloaded(tmp_path):
    folder = tmp_path / "dac"
    folder.mkdir()
    rows = criteo_rows()
    rows.write_csv(folder / "train.txt", separator="\t", include_header=False)
    rows.drop("label").write_csv(folder / "test.txt", separator="\t", include_header=False)
    (folder / "readme.txt").write_text("Criteo's display advertising challenge")
    path = tmp_path / "dac.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("readme.txt", "test.txt", "train.txt"):
            archive.add(folder / name, name)
    known = DATASETS["criteo"]
    inspection = known.inspect(str(path))
    assert tuple(inspection.column) == COLUMN_NAMES and inspection.rows == 120
    config = known.config_for(str(path)).replace(source=inspection.source)
    assert sum(encode_dataset(config, tmp_path / "encoded").summary.clicks.values()) == 40


def test_other_tables_are_not_taken_for_known_ones(tmp_path):
    path = tmp_path / "train.csv"
    scaled = criteo_rows().with_columns(pl.col("^C.*$").str.to_integer(base=16).cast(pl.String))
    scaled.write_csv(path)
    other = inspect_and_recognise(SourceConfig(paths=(str(path),)))
    assert [note.text for note in other.notes if "display advertising" in note.text] == []
    scaled.drop("C3").write_csv(path)
    assert "known" not in {note.kind for note in inspect_and_recognise(SourceConfig(paths=(str(path),))).notes}


def test_avazu_is_recognised_by_its_names(tmp_path):
    names = [column.name for column in DATASETS["avazu"].config_for("x").columns]
    rows = [
        [f"{10**18 + i}", str(i % 5 // 4), f"1410{21 + i % 8}{i % 24:02}", *(f"v{i * 7 % 11}" for _ in names[3:])]
        for i in range(300)
    ]
    pl.DataFrame(rows, schema=names, orient="row").write_csv(tmp_path / "train.csv")
    inspection = inspect_and_recognise(SourceConfig(paths=(str(tmp_path / "train.csv"),)))
    assert {note.kind for note in inspection.notes} == {"known", "time split"}
    assert (inspection.column["id"].role, inspection.column["hour"].timestamp_format) == ("ignore", "yymmddhh")


@pytest.mark.realdata
def test_the_criteo_sample_encodes_from_parquet_and_from_the_original_text_alike(realdata, tmp_path):
    rows = pl.read_parquet(realdata / "criteo_137k.parquet")
    rows.write_csv(tmp_path / "train.txt", separator="\t", include_header=False, null_value="")
    parquet = encode_dataset(DATASETS["criteo"].config_for(str(realdata / "criteo_137k.parquet")), tmp_path / "a")
    text = encode_dataset(DATASETS["criteo"].config_for(str(tmp_path / "train.txt")), tmp_path / "b")
    assert tuple(rows.columns) == COLUMN_NAMES
    assert text.schema == parquet.schema
    assert sum(text.summary.rows.values()) == 137_139
    assert len(text.schema.field_names) == 39
    for name in text.splits:
        np.testing.assert_array_equal(text.split(name).ids, parquet.split(name).ids)
    clicks = sum(int(text.split(name).labels.sum()) for name in text.splits)
    assert clicks / 137_139 == pytest.approx(0.2568, abs=1e-4)
    # The encoder alone gives the first rows of the table the ids that the two passes gave them, whichever split they are in.
    head = FieldEncoder.load(text.path).transform(rows.head(1000))
    splits = SplitAssigner(text.config.split).assign(rows["label"].head(1000).cast(int).to_numpy())
    for number, name in enumerate(SPLIT_NAMES):
        ids = head.ids[splits == number]
        np.testing.assert_array_equal(ids, text.split(name).ids[: len(ids)], err_msg=name)


@pytest.mark.realdata
def test_the_avazu_sample_encodes_with_hour_and_weekday(realdata, tmp_path):
    dataset = encode_dataset(DATASETS["avazu"].config_for(str(realdata / "avazu_33k.csv.gz")), tmp_path / "a")
    assert sum(dataset.summary.rows.values()) == 33_261
    assert len(dataset.schema.field_names) == 23
    cardinality = {field.name: field.cardinality for field in dataset.summary.fields}
    assert cardinality["hour_hour"] == 24
    assert cardinality["hour_weekday"] == 2


@pytest.mark.realdata
def test_the_frappe_files_encode_as_they_are_split(realdata, tmp_path):
    paths = [realdata / "frappe_x1" / f"{name}.csv.gz" for name in ("train", "valid", "test")]
    for path, name in zip(paths[1:], ("valid.csv", "test.csv"), strict=True):
        text = gzip.decompress(path.read_bytes()).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        assert hashlib.md5(text).hexdigest() == DATASETS["frappe_x1"].checksums[name]
    dataset = encode_dataset(DATASETS["frappe_x1"].config_for([str(path) for path in paths]), tmp_path / "a")
    assert dataset.summary.rows == {"train": 202_027, "valid": 57_722, "test": 28_860}
    assert dataset.summary.ctr["test"] == pytest.approx(0.330, abs=1e-3)


def written(path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize(
    "lines",
    [
        ["root:x:0:0:root:/root:/bin/bash"] * 3 + ["alice:SECRET:1:1::/home/alice:/bin/sh"] * 90,
        ["SECRET,SECRET,b", *["1,2,3"] * 90],
        ["\t".join(["SECRET"] * 40)] * 90,
        ["SECRET"] * 90,
        ['a,"SEC', 'RET",b', "1,2,3"],
        ["click,SECRET", *["SECRET,1,2"] * 90],
    ],
)
def test_a_file_in_another_format_is_refused_without_its_cells(tmp_path, lines):
    path = written(tmp_path / "private.txt", lines)
    for known in DATASETS:
        with pytest.raises(DataError) as caught:
            known.inspect([path] * known.num_files)
        assert "private.txt" in str(caught.value)
        assert not any(word in str(caught.value) for word in ("SECRET", "alice", "/root", "SEC"))


def test_the_second_file_is_checked_too(tmp_path):
    good = written(tmp_path / "train.csv", ["label,user_id,item_id,tag_id", *["1,2,3,4", "0,3,4,5"] * 30])
    bad = written(tmp_path / "valid.csv", ["SECRET:x:0,0", *["SECRET:1,2"] * 30])
    movielens = DATASETS["movielens"]
    assert movielens.inspect([good] * 3).rows == 60
    with pytest.raises(DataError, match=r"valid.csv is not in the format of MovieLens") as caught:
        movielens.inspect([good, bad, good])
    assert "SECRET" not in str(caught.value)


def test_a_label_with_other_values_is_refused_without_them(tmp_path):
    path = written(tmp_path / "t.csv", ["label,user_id,item_id,tag_id", *["SECRET,2,3,4", "7,3,4,5"] * 30])
    with pytest.raises(DataError, match="other values than 0 and 1 in label") as caught:
        DATASETS["movielens"].inspect([path] * 3)
    assert "SECRET" not in str(caught.value)
