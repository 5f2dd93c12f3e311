import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from ctrlab.data.configs import SourceConfig
from ctrlab.data.synthetic import SyntheticConfig, generate, planted_ranks, simulate, write_sample
from ctrlab.data.tables.draft import draft_config
from ctrlab.data.tables.inspect import inspect_table
from ctrlab.errors import ConfigError

SAMPLE = Path(__file__).parents[2] / "sample_data" / "ads.csv.gz"


@pytest.fixture(scope="module")
def sample():
    return simulate()


def test_the_same_seed_gives_the_same_table_and_another_another():
    small = SyntheticConfig(num_rows=500)
    assert generate(small).equals(generate(small))
    assert not generate(small).equals(generate(small.replace(seed=8)))


def test_true_embeddings_have_exactly_the_planted_ranks(sample):
    for name, rank in planted_ranks().items():
        assert np.linalg.matrix_rank(sample.embeddings[name], tol=1e-8) == rank


def test_clicks_are_rare_and_the_best_possible_auc_is_well_below_one(sample):
    clicks = sample.frame["click"].to_numpy()
    assert 0.05 < clicks.mean() < 0.3
    assert clicks.mean() == pytest.approx(sample.probabilities.mean(), abs=0.01)
    assert 0.75 < sample.best_auc < 0.85
    assert sample.best_auc == pytest.approx(roc_auc_score(clicks, sample.probabilities), abs=1e-12)


def test_values_follow_a_zipf_law_and_some_are_missing(sample):
    counts = sample.frame["creative"].drop_nulls().value_counts(sort=True)["count"].to_numpy()
    assert counts[0] > 10 * counts[len(counts) // 4]
    assert 0.01 < np.mean([sample.frame[name].null_count() / len(sample.frame) for name in sample.frame.columns]) < 0.2
    assert sample.frame["click"].null_count() == 0


def test_a_written_table_is_the_same_to_the_byte(tmp_path):
    small = SyntheticConfig(num_rows=500)
    first, second = tmp_path / "a.csv.gz", tmp_path / "b.csv.gz"
    table = write_sample(first, small)
    write_sample(second, small)
    assert first.read_bytes() == second.read_bytes()
    assert pl.read_csv(gzip.decompress(first.read_bytes()), infer_schema=False).equals(table.frame.cast(pl.String))


def test_the_committed_sample_is_what_the_defaults_make_and_small(sample):
    assert SAMPLE.stat().st_size < 2e6
    assert pl.read_csv(gzip.decompress(SAMPLE.read_bytes()), infer_schema=False).equals(sample.frame.cast(pl.String))


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_other_file_types_hold_the_same_table(tmp_path, name):
    config = SyntheticConfig(num_rows=300)
    table = write_sample(tmp_path / name, config)
    frame = (
        pl.read_parquet(tmp_path / name) if name.endswith("parquet") else pl.read_csv(tmp_path / name, schema=table.frame.schema)
    )
    assert frame.equals(table.frame)


def test_the_sample_is_inspected_as_it_was_meant():
    config = SyntheticConfig()
    draft = draft_config(inspect_table(SourceConfig(paths=(str(SAMPLE),))), "ads")
    drafted = {column.name: column.role for column in draft.columns}
    assert drafted["click"] == "label"
    assert all(drafted[name] == "categorical" for name in config.field_names)
    assert all(drafted[name] == "numeric" for name in config.numeric_names)


def test_a_behaviour_list_affects_clicks_and_changes_no_other_column():
    plain = SyntheticConfig(num_rows=4000)
    with_history, weak = plain.replace(history_of="site"), plain.replace(history_of="site", history_std=0.0)
    table, without = simulate(with_history), simulate(plain)
    assert table.frame.drop("click", "site_history").equals(without.frame.drop("click"))
    assert simulate(weak).frame["click"].equals(without.frame["click"])
    lists = table.frame["site_history"].str.split("^")
    assert lists.list.len().max() == with_history.history_length
    assert set(lists.explode().drop_nulls()) <= set(simulate(plain.replace(num_rows=100_000)).frame["site"].drop_nulls())
    # With the list, predictions are better than without.
    clicks = table.frame["click"].to_numpy()
    assert roc_auc_score(clicks, table.probabilities) > roc_auc_score(clicks, without.probabilities) + 0.02


def test_a_behaviour_list_is_inspected_as_a_list_of_its_field(tmp_path):
    write_sample(tmp_path / "t.csv", SyntheticConfig(num_rows=3000, history_of="site"))
    column = inspect_table(SourceConfig(paths=(str(tmp_path / "t.csv"),))).column["site_history"]
    assert (column.role, column.separator, column.max_length, column.shares) == ("list", "^", 12, "site")


def test_impossible_generator_settings_are_refused():
    with pytest.raises(ConfigError, match="history_of must be one of device"):
        SyntheticConfig(history_of="nothing")
    with pytest.raises(ConfigError, match="at most latent_dim=2"):
        SyntheticConfig(latent_dim=2)
    with pytest.raises(ConfigError, match="same fields"):
        SyntheticConfig(ranks=(1, 2))
    with pytest.raises(ConfigError, match="differ from each other"):
        SyntheticConfig(numeric_names=("click",))
