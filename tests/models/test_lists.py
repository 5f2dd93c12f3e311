"""What architectures that read lists have in common: padding, shared tables, and which data they need."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ctrlab.compression.surgery import compress_model
from ctrlab.data.schema import FeatureSchema, Fields, ListFeature
from ctrlab.decomposition.collect import collect_covariances, table_moments
from ctrlab.errors import ConfigError
from ctrlab.evaluation.metrics import auc
from ctrlab.models.base import build_model
from ctrlab.models.configs import MODELS
from ctrlab.models.configs.sequences import SequenceModelConfig
from ctrlab.models.cost import measure_cost
from ctrlab.models.inventory import list_layers
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressionSpec, RankPlan
from tests.support.small_models import SCHEMA, MemoryDataset, logits, make_model, random_fields, small_config, spectra_of

SEQUENCES = [entry.name for entry in MODELS if issubclass(entry.config_class, SequenceModelConfig)]
FIELDS = random_fields(40)
over_sequences = pytest.mark.parametrize("name", SEQUENCES)


def test_there_are_three_of_them():
    assert {"din", "gru4rec", "bst"} <= set(SEQUENCES)


@pytest.mark.parametrize("name", ["din", "gru4rec"])
def test_a_longer_list_with_more_padding_gives_the_same_logits(name):
    """Not so BST, whose MLP reads every place."""
    longer = replace(SCHEMA, lists=(replace(SCHEMA.lists[0], length=6), SCHEMA.lists[1]))
    short, long = make_model(name), make_model(name, schema=longer)
    long.load_state_dict(short.state_dict())
    padding = torch.ones(len(FIELDS.lists), 2, dtype=torch.int32)
    padded = FIELDS._replace(lists=torch.cat([FIELDS.lists[:, :4], padding, FIELDS.lists[:, 4:]], dim=1))
    torch.testing.assert_close(logits(long, padded), logits(short, FIELDS), atol=1e-5, rtol=1e-5)


@over_sequences
def test_what_stands_in_the_padding_row_of_a_table_does_not_matter_to_lists(name):
    model, fields = make_model(name), FIELDS._replace(ids=FIELDS.ids.clamp(min=2))
    before = logits(model, fields)
    for table in (0, 1, 2, 3):
        rows = model.embedding.categorical.rows_of(table)
        model.embedding.categorical.table.weight.data[rows.start + 1] = 100.0
    torch.testing.assert_close(logits(model, fields), before)


@over_sequences
def test_lists_matter(name):
    model = make_model(name)
    other = FIELDS._replace(lists=random_fields(40, seed=9).lists)
    assert (logits(model, FIELDS) - logits(model, other)).abs().max() > 1e-3


@over_sequences
def test_whether_the_item_shown_was_met_before_can_be_learned(name):
    """A click is an item that is in the list: no field alone tells it, and no other field is there."""
    schema = FeatureSchema(field_names=("item",), field_dims=(10,), lists=(ListFeature(name="seen", length=4, shares="item"),))
    random = np.random.default_rng(0)
    items, lists = random.integers(2, 10, (2000, 1)), random.integers(2, 10, (2000, 4))
    clicks = torch.tensor((lists == items).any(axis=1), dtype=torch.float32)
    fields = Fields(torch.tensor(items), torch.zeros(2000, 0), torch.tensor(lists))
    model = make_model(name, schema=schema, attention_dims=(16,), hidden_dim=32, num_blocks=1).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    model.embedding.eval()  # dense gradients, for a plain Adam
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(fields), clicks).backward()
        optimizer.step()
    assert auc(clicks.numpy(), logits(model.eval(), fields).numpy()) > 0.9


@over_sequences
def test_a_shared_table_is_one_layer_compressed_once(name):
    model = make_model(name)
    tables = [layer for layer in list_layers(model) if layer.kind == "embedding"]
    assert [layer.layer_name for layer in tables] == [f"embedding.{name}" for name in ("site", "device", "ad", "tags")]
    assert [profile_model(model).by_name[layer.layer_name].positions for layer in tables] == [1, 1, 5, 3]
    plan = RankPlan.of({"embedding.ad": 3, "embedding.tags": 2, "embedding.site": 3})
    small = compress_model(model, CompressionSpec(plan=plan), spectra_of(model)).model
    assert small.embedding.look_up(FIELDS.lists[:, :4], 2).shape == (40, 4, 8)
    with torch.no_grad():
        alone = small.embedding(FIELDS)[:, 2]
        torch.testing.assert_close(small.embedding.look_up(FIELDS.ids[:, 2], 2), alone)
        full = compress_model(
            model, CompressionSpec.of({"embedding.ad": 8, "embedding.tags": 8}), spectra_of(model), respect_break_even=False
        )
        for table, places in ((2, slice(0, 4)), (3, slice(4, 7))):
            ids = FIELDS.lists[:, places]
            expected = model.embedding.look_up(ids, table)
            torch.testing.assert_close(full.model.embedding.look_up(ids, table), expected, atol=1e-5, rtol=1e-5)


@over_sequences
def test_a_shared_table_is_watched_over_all_its_look_ups(name):
    """The field's own and those of the list: the spectrum is that of the vectors which the model really reads."""
    model, dataset = make_model(name), MemoryDataset()
    fields = dataset.fields()
    for table, places in ((2, slice(0, 4)), (3, slice(4, 7))):
        elements = fields.lists[:, places]
        looked_up = [elements[elements != 1], *([fields.ids[:, 2]] if table == 2 else [])]
        vectors = model.embedding.look_up(torch.cat(looked_up), table).detach().double().numpy()
        found = spectra_of(model, dataset)[f"embedding.{SCHEMA.table_names[table]}"]
        assert found.num_samples == len(vectors)
        np.testing.assert_allclose(found.mean, vectors.mean(0), atol=1e-6)
        expected = np.linalg.eigvalsh(np.cov(vectors.T, bias=True))[::-1]
        np.testing.assert_allclose(found.eigenvalues, expected, atol=1e-6)


def test_an_architecture_without_lists_counts_the_field_alone():
    model, dataset = make_model("deepfm"), MemoryDataset()
    table = model.embedding.categorical.table.weight.detach()[model.embedding.categorical.rows_of(2)]
    expected = table_moments(table, dataset.counts(2)).mean
    np.testing.assert_allclose(spectra_of(model, dataset)["embedding.ad"].mean, expected)
    assert "embedding.tags" not in {layer.layer_name for layer in list_layers(model)}


@pytest.mark.parametrize(("name", "layer"), [("din", "attention.0.0"), ("bst", "transformers.0.blocks.0.attention.q")])
def test_spectra_see_elements_and_no_padding(name, layer):
    moments = collect_covariances(make_model(name), [FIELDS], [layer])[layer]
    elements = int((FIELDS.lists[:, :4] != 1).sum())
    assert moments.n == elements + (len(FIELDS.ids) if name == "bst" else 0)  # BST's list ends with the target


def test_what_runs_over_a_list_counts_for_each_place():
    profile = profile_model(make_model("din"))
    assert profile.by_name["attention.0.0"].positions == 4
    assert profile.by_name["mlp.0"].positions == 1
    mlp = 32 * (5 * 8 + 2 * 8) + 32 * 24 + 24
    unit = 4 * (32 * 10 + 10 * 6 + 6 + 2 * (10 + 6) + 10 + 6)  # Dice: two products and the normalisation
    assert measure_cost(make_model("din")).macs == 2 * 8 + unit + mlp


@over_sequences
def test_data_without_a_list_is_refused_with_the_fields_it_has(name):
    title = MODELS[name].title
    with pytest.raises(
        ConfigError, match=f"{title} needs a list-valued field; this dataset has none: site, device, ad, age, price"
    ):
        build_model(small_config(name, embed_dim=8), replace(SCHEMA, lists=()))


@pytest.mark.parametrize("name", ["din", "bst"])
def test_a_list_without_a_target_is_refused_where_one_is_needed(name):
    with pytest.raises(ConfigError, match=r"no list of this dataset shares any \(tags\); let a list share"):
        build_model(small_config(name, embed_dim=8), replace(SCHEMA, lists=SCHEMA.lists[1:]))


def test_both_maps_of_a_recurrence_are_layers():
    reasons = {layer.layer_name: layer.skip_reason for layer in list_layers(make_model("gru4rec"))}
    assert reasons["gru.0.input"] is None and reasons["gru.1.hidden"] is None
