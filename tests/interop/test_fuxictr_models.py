"""A model trained in FuxiCTR is compressed, measured and trained on by FuxiCTR's own code."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("fuxictr", reason="FuxiCTR is not installed here; `make interop` runs these tests")

from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import MaskedAveragePooling
from fuxictr_deepfm import DeepFM, feature_map_of

from ctrlab.interop import fuxictr

TABLE = "embedding_layer.embedding_layer.embedding_layers"
RANKS = {f"{TABLE}.site": 3, f"{TABLE}.ad": 2, "mlp.mlp.2": 12}


def batches(rows=1200, size=200):
    """Clicks that depend on pairs of ids; a list of FuxiCTR's batches is all that its `fit` needs of a loader."""
    draw = np.random.default_rng(0)
    ids = {"site": draw.integers(1, 30, rows), "ad": draw.integers(1, 50, rows)}
    clicks = (ids["site"] * ids["ad"] % 7 < 3).astype(np.float32)
    columns = {name: torch.from_numpy(column) for name, column in (ids | {"label": clicks}).items()}
    return [{name: column[start : start + size] for name, column in columns.items()} for start in range(0, rows, size)]


def deepfm(folder: Path, **settings) -> DeepFM:
    torch.manual_seed(0)
    (folder / "toy").mkdir(exist_ok=True)
    feature_map = feature_map_of(folder / "toy", {"site": 31, "ad": 51}, 6)
    return DeepFM(feature_map, embed_dim=6, mlp_dims=[48, 32], model_root=str(folder), model_id="base", **settings)


@pytest.fixture(scope="module")
def loader():
    return batches()


@pytest.fixture
def model(tmp_path, loader):
    trained = deepfm(tmp_path, embedding_regularizer=1e-4, learning_rate=1e-2)
    trained.fit(loader, epochs=3, validation_data=loader)
    return trained


def test_their_evaluation_takes_the_compressed_model_and_sees_nearly_the_same_auc(model, loader):
    before = model.evaluate(loader)
    result = fuxictr.compress(model, loader, variance=0.98)
    after = result.model.evaluate(loader)
    assert type(result.model) is DeepFM
    assert result.plan.as_dict()
    assert before["AUC"] > 0.7
    assert after["AUC"] == pytest.approx(before["AUC"], abs=0.02)
    assert result.model.predict(loader).shape == (1200,)


def test_fewer_parameters_are_left_and_the_original_keeps_its_own(model, loader):
    kept, optimizer, valid_gen = copy.deepcopy(model.state_dict()), model.optimizer, model.valid_gen
    model.train()
    result = fuxictr.compress(model, loader, ranks=RANKS)
    count = {id(m): sum(p.numel() for p in m.parameters()) for m in (model, result.model)}
    saved = sum(row.parameters_before - row.parameters_after for row in result.rows)
    assert saved > 0 and count[id(result.model)] == count[id(model)] - saved
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert model.optimizer is optimizer and model.valid_gen is valid_gen and model.training
    assert not hasattr(result.model, "valid_gen")


def test_their_fit_moves_every_weight_of_the_compressed_model_and_saves_beside_the_originals_checkpoint(model, loader):
    saved = Path(model.checkpoint).read_bytes()
    compressed = fuxictr.compress(model, loader, ranks=RANKS).model
    start = {name: value.detach().clone() for name, value in compressed.named_parameters()}
    before = compressed.evaluate(loader)["AUC"]
    compressed.fit(loader, epochs=3, validation_data=loader)
    assert [name for name, value in compressed.named_parameters() if torch.equal(value, start[name])] == []
    assert compressed.evaluate(loader)["AUC"] > before - 1e-9
    assert Path(compressed.checkpoint) != Path(model.checkpoint) and Path(compressed.checkpoint).exists()
    assert Path(model.checkpoint).read_bytes() == saved


def test_the_learning_rate_their_plateau_rule_came_down_to_is_kept(model, loader):
    model.lr_decay()
    compressed = fuxictr.compress(model, loader, ranks=RANKS).model
    assert [group["lr"] for group in compressed.optimizer.param_groups] == [pytest.approx(1e-3)]


def test_the_padding_row_stays_zero_also_after_their_training(model, loader):
    compressed = fuxictr.compress(model, loader, ranks=RANKS).model
    for _ in range(2):
        for feature in ("site", "ad"):
            padded = compressed.embedding_layer.embedding_layer.embedding_layers[feature](torch.zeros(3, dtype=torch.long))
            assert torch.equal(padded, torch.zeros(3, 6))
        compressed.fit(loader, epochs=1, validation_data=loader)


def test_one_dimensional_tables_and_the_one_unit_head_are_skipped_with_the_reason(model, loader):
    skipped = fuxictr.compress(model, loader, variance=0.9).skipped
    assert {f"fm.lr_layer.embedding_layer.embedding_layer.embedding_layers.{name}" for name in ("site", "ad")} <= set(skipped)
    assert "mlp.mlp.4" in skipped
    assert all(skipped.values())


def list_batches(rows=600, size=200):
    """A candidate and a padded history of up to five, which share one table."""
    draw = np.random.default_rng(1)
    history = draw.integers(1, 40, (rows, 5)) * (np.arange(5) < draw.integers(0, 6, (rows, 1)))
    ids = draw.integers(1, 40, rows)
    columns = {"ad": ids, "history": history, "label": (ids % 3 == 0).astype(np.float32)}
    tensors = {name: torch.from_numpy(column) for name, column in columns.items()}
    return [{name: column[start : start + size] for name, column in tensors.items()} for start in range(0, rows, size)]


def test_a_table_shared_with_a_padded_list_is_replaced_once_and_padding_stays_out_of_the_mean(tmp_path):
    feature_map = FeatureMap("lists", str(tmp_path))
    common = {"source": "", "padding_idx": 0, "vocab_size": 40, "oov_idx": 39}
    feature_map.features = {
        "ad": common | {"type": "categorical"},
        "history": common
        | {"type": "sequence", "max_len": 5, "share_embedding": "ad", "feature_encoder": "layers.MaskedAveragePooling()"},
    }
    feature_map.labels, feature_map.default_emb_dim, feature_map.num_fields = ["label"], 6, 2
    torch.manual_seed(0)
    loader = list_batches()
    model = DeepFM(feature_map, embed_dim=6, mlp_dims=[8], model_root=str(tmp_path), model_id="lists", learning_rate=1e-2)
    (tmp_path / "lists").mkdir()
    model.fit(loader, epochs=2, validation_data=loader)
    compressed = fuxictr.compress(model, loader, ranks={f"{TABLE}.ad": 3}).model
    tables = compressed.embedding_layer.embedding_layer.embedding_layers
    assert tables["ad"] is tables["history"]
    mean_of = MaskedAveragePooling()
    assert torch.allclose(mean_of(tables["ad"](torch.tensor([[7, 9, 0, 0]]))), mean_of(tables["ad"](torch.tensor([[7, 9]]))))
