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

SAMPLE = Path(__file__).parents[2] / "sample_data" / "clicks.csv.gz"


@pytest.fixture(scope="module")
def sample():
    return simulate()


def test_the_same_seed_gives_the_same_table_and_another_another():
    small = SyntheticConfig(num_rows=500)
    assert generate(small).equals(generate(small))
    assert not generate(small).equals(generate(small.replace(seed=8)))


def test_true_embeddings_have_exactly_the_planted_ranks(sample):
    ranks = planted_ranks()
    assert min(ranks.values()) == 0 and max(ranks.values()) == 3
    for name, rank in ranks.items():
        assert np.linalg.matrix_rank(sample.embeddings[name], tol=1e-8) == rank


def test_clicks_are_rare_and_the_best_possible_auc_is_well_below_one(sample):
    clicks = sample.frame["click"].to_numpy()
    assert 0.05 < clicks.mean() < 0.3
    assert clicks.mean() == pytest.approx(sample.probabilities.mean(), abs=0.01)
    assert 0.75 < sample.best_auc < 0.85
    assert sample.best_auc == pytest.approx(roc_auc_score(clicks, sample.probabilities), abs=1e-12)


def test_values_have_a_head_and_a_long_tail_and_some_are_missing(sample):
    counts = sample.frame["user"].drop_nulls().value_counts(sort=True)["count"].to_numpy()
    assert counts[: len(counts) // 10].sum() > 0.4 * counts.sum()
    assert np.median(counts) < 8 and counts[0] < 0.01 * len(sample.frame)
    assert 0.01 < np.mean([sample.frame[name].null_count() / len(sample.frame) for name in sample.frame.columns]) < 0.2
    assert sample.frame["click"].null_count() == 0


def test_missing_numbers_are_written_as_words_in_some_columns_and_as_empty_cells_in_others(sample):
    config = SyntheticConfig()
    texts = sample.frame.select(config.numeric_names).cast(pl.String)
    found = [set(texts[name].drop_nulls()) & set(config.missing_words) for name in config.numeric_names]
    assert sorted(word for words in found for word in words) == sorted(config.missing_words)
    assert any(texts[name].null_count() for name in config.numeric_names)
    without = simulate(config.replace(num_rows=5000, missing_words=()))
    assert simulate(config.replace(num_rows=5000)).frame["click"].equals(without.frame["click"])


def test_rows_are_sorted_by_time_and_the_click_depends_on_the_hour(sample):
    times = sample.frame["time"].str.to_datetime("%Y-%m-%d %H:%M:%S")
    assert times.is_sorted() and (times[-1] - times[0]).days == SyntheticConfig().days - 1
    by_hour = sample.frame.group_by(times.dt.hour().alias("hour")).agg(pl.col("click").mean(), pl.len()).sort("hour")
    assert by_hour["click"][21] > by_hour["click"][9] + 0.03
    assert by_hour["len"][15] > 5 * by_hour["len"][3]


def test_the_leak_nearly_is_the_label_and_changes_no_other_column(sample):
    assert 0.95 < roc_auc_score(sample.frame["click"], sample.frame["seconds_on_page"]) < 0.999
    small = SyntheticConfig(num_rows=2000)
    assert simulate(small.replace(leak_name=None)).frame.equals(simulate(small).frame.drop("seconds_on_page"))


def test_a_field_of_strength_0_tells_nothing_of_the_click():
    few = SyntheticConfig(
        num_rows=20_000, field_names=("ad", "page"), cardinalities=(40, 40), ranks=(1, 0), strengths=(1.0, 0.0), history_of=None
    )  # fmt: skip
    table = simulate(few)
    clicks = table.frame["click"].to_numpy()

    def auc_of_means(name: str) -> float:
        """Of the click rate of each value in the first half, on the second."""
        half = len(clicks) // 2
        means = table.frame.head(half).group_by(name).agg(pl.col("click").mean().alias("mean"))
        seen = table.frame.tail(half).join(means, on=name, how="left", nulls_equal=True, maintain_order="left")
        return roc_auc_score(clicks[half:], seen["mean"].fill_null(few.ctr))

    assert auc_of_means("ad") > 0.56
    assert abs(auc_of_means("page") - 0.5) < 0.02


def test_a_written_table_is_the_same_to_the_byte(tmp_path):
    small = SyntheticConfig(num_rows=500)
    first, second = tmp_path / "a.csv.gz", tmp_path / "b.csv.gz"
    table = write_sample(first, small)
    write_sample(second, small)
    assert first.read_bytes() == second.read_bytes()
    assert pl.read_csv(gzip.decompress(first.read_bytes()), infer_schema=False).equals(table.frame.cast(pl.String))


def test_the_committed_sample_is_what_the_defaults_make_and_small(sample):
    assert SAMPLE.stat().st_size < 4e6
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
    inspection = inspect_table(SourceConfig(paths=(str(SAMPLE),)), max_rows=20_000)
    draft = draft_config(inspection, "ads")
    drafted = {column.name: column.role for column in draft.columns}
    assert drafted["click"] == "label"
    assert all(drafted[name] == "categorical" for name in config.field_names)
    assert drafted["time"] == "timestamp" and drafted["campaign_history"] == "list"
    assert all(drafted[name] == "numeric" for name in config.numeric_names)
    assert [note.column for note in inspection.notes if note.kind == "leak"] == [config.leak_name]


def test_a_behaviour_list_affects_clicks_and_changes_no_other_column():
    plain = SyntheticConfig(num_rows=4000, history_of=None, leak_name=None)
    with_history = plain.replace(history_of="region", history_std=1.25)
    table, without = simulate(with_history), simulate(plain)
    assert table.frame.drop("click", "region_history").equals(without.frame.drop("click"))
    assert simulate(with_history.replace(history_std=0.0)).frame["click"].equals(without.frame["click"])
    lists = table.frame["region_history"].str.split("^")
    assert lists.list.len().max() == with_history.history_length
    assert set(lists.explode().drop_nulls()) <= set(without.frame["region"].drop_nulls())
    # With the list, predictions are better than without.
    clicks = table.frame["click"].to_numpy()
    assert roc_auc_score(clicks, table.probabilities) > roc_auc_score(clicks, without.probabilities) + 0.02


def test_a_behaviour_list_is_inspected_as_a_list_of_its_field(tmp_path):
    write_sample(tmp_path / "t.csv", SyntheticConfig(num_rows=3000, history_of="site"))
    column = inspect_table(SourceConfig(paths=(str(tmp_path / "t.csv"),))).column["site_history"]
    assert (column.role, column.separator, column.max_length, column.shares) == ("list", "^", 8, "site")


def test_impossible_generator_settings_are_refused():
    with pytest.raises(ConfigError, match="history_of must be one of device"):
        SyntheticConfig(history_of="nothing")
    with pytest.raises(ConfigError, match="at most latent_dim=2"):
        SyntheticConfig(latent_dim=2)
    with pytest.raises(ConfigError, match="same fields"):
        SyntheticConfig(ranks=(1, 2))
    with pytest.raises(ConfigError, match="strengths must list the same fields"):
        SyntheticConfig(strengths=(1.0,))
    for repeated in ({"numeric_names": ("click",)}, {"time_name": "site"}, {"leak_name": "time"}):
        with pytest.raises(ConfigError, match="differ from each other"):
            SyntheticConfig(**repeated)
