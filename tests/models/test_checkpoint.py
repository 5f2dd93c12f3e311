"""models/checkpoint.py and models/header.py: what is written comes back, and nothing else is taken."""

import json
import pickle
import struct
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from ctrlab.compression.fold import fold
from ctrlab.compression.surgery import compress_model
from ctrlab.data.schema import FeatureSchema
from ctrlab.errors import DataError, StorageError
from ctrlab.models import checkpoint
from ctrlab.models.checkpoint import load_model, save_model, save_tensors
from ctrlab.models.header import METADATA_KEY, read_model_header
from ctrlab.plans.configs import CompressionSpec
from tests.support.patience import PATIENCE
from tests.support.small_models import SCHEMA, logits, make_model, random_fields, spectra_of


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(make_model("deepfm", batch_norm=True), path)
    return path


def rewrite(path, **changes):
    """The same file with some facts of its document changed; None removes one."""
    with safetensors.safe_open(path, "pt") as file:
        document = json.loads(file.metadata()[METADATA_KEY]) | changes
    document = {key: value for key, value in document.items() if value is not None or key == "structure"}
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, {METADATA_KEY: json.dumps(document)})


@pytest.mark.parametrize("architecture", ["deepfm", "dcn"])
def test_a_model_comes_back_with_the_same_logits_in_evaluation_mode(architecture, tmp_path):
    model = make_model(architecture, batch_norm=True, dropout=0.2)
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors", SCHEMA)
    assert not loaded.training
    assert (loaded.config, loaded.schema, loaded.structure) == (model.config, model.schema, None)
    fields = random_fields(50)
    assert torch.equal(logits(loaded, fields), logits(model, fields))


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("architecture", ["deepfm", "dcn"])
def test_a_compressed_model_comes_back_without_its_original(architecture, folded, tmp_path):
    model = make_model(architecture)
    compressed = compress_model(
        model, CompressionSpec.of({"mlp.2": 6, "embedding.ad": 3}, bottleneck="prelu"), spectra_of(model)
    ).model.eval()
    compressed = fold(compressed) if folded else compressed
    save_model(compressed, tmp_path / "small.safetensors")
    loaded = load_model(tmp_path / "small.safetensors")
    assert loaded.structure == compressed.structure
    fields = random_fields(50)
    assert torch.equal(logits(loaded, fields), logits(compressed, fields))
    assert read_model_header(tmp_path / "small.safetensors").structure == compressed.structure


def test_loading_does_not_move_the_random_numbers(saved):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_model(saved)
    assert torch.equal(torch.rand(3), expected)


def test_the_header_tells_the_model_without_torch(saved):
    code = (
        "import sys; from ctrlab.models.header import read_model_header; h = read_model_header(sys.argv[1]);"
        "print(h.architecture, h.config.mlp_dims, h.schema.fingerprint, h.structure, h.num_parameters, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, saved], capture_output=True, text=True, check=True, timeout=PATIENCE)
    count = sum(tensor.numel() for tensor in make_model("deepfm", batch_norm=True).state_dict().values())
    assert done.stdout.strip() == f"deepfm (32, 24) small None {count} False"


def test_a_failed_write_leaves_the_old_file_and_no_other(saved, monkeypatch):
    before = saved.read_bytes()

    def full_disk(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.safetensors.torch, "save_file", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        save_model(make_model("dcn"), saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def refused(path, match, error=StorageError):
    """Both the header's reader and the loader refuse, in one line."""
    for read in (read_model_header, load_model):
        with pytest.raises(error, match=match) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    refused(tmp_path / "nothing.safetensors", "there is no checkpoint at")
    refused(tmp_path, "cannot be read")


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was run",))


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.safetensors"])
@pytest.mark.parametrize("protocol", [2, 4, 5, "zip", "legacy"])
def test_a_pickle_is_refused_whatever_its_name_and_never_run(name, protocol, tmp_path):
    path = tmp_path / name
    if isinstance(protocol, int):
        path.write_bytes(pickle.dumps(Bomb(), protocol=protocol))
    else:
        torch.save(make_model("deepfm").state_dict(), path, _use_new_zipfile_serialization=protocol == "zip")
    refused(path, "is a Python pickle")


def test_an_old_text_pickle_named_safetensors_is_refused_unrun(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Bomb(), protocol=0))
    refused(tmp_path / "model.safetensors", "is not a safetensors file")


@pytest.mark.parametrize("keep", [0, 3, 8, 9, 200, -100, -1])
def test_a_truncated_file_is_refused(saved, keep):
    whole = saved.read_bytes()
    saved.write_bytes(whole[:keep])
    refused(saved, "truncated or damaged|cut off at its beginning")


def test_a_file_with_more_behind_it_is_refused(saved):
    saved.write_bytes(saved.read_bytes() + b"more")
    refused(saved, "truncated or damaged")


def test_a_header_longer_than_the_format_allows_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    refused(tmp_path / "model.safetensors", "not a safetensors file")


def test_another_programs_safetensors_are_refused(tmp_path):
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors", {"format": "pt"})
    refused(tmp_path / "other.safetensors", "that ctrlab did not write")


def test_another_format_version_is_refused(saved):
    rewrite(saved, format_version=2)
    refused(saved, "has checkpoint format 2, this ctrlab reads 1")


def test_another_kind_of_ctrlab_file_is_refused(tmp_path):
    save_tensors(tmp_path / "fit.safetensors", {"a": torch.zeros(1)}, {"kind": "training state"})
    refused(tmp_path / "fit.safetensors", "holds a training state, not a model")


def test_an_unknown_architecture_setting_or_missing_fact_is_refused(saved):
    whole = saved.read_bytes()
    rewrite(saved, architecture="gpt")
    refused(saved, "no model is called 'gpt'")
    saved.write_bytes(whole)
    rewrite(saved, config={"width": 3})
    refused(saved, "unknown setting width")
    saved.write_bytes(whole)
    rewrite(saved, schema=None)
    refused(saved, "its description lacks 'schema'")


def test_weights_that_do_not_fit_the_description_are_refused(saved):
    config = make_model("deepfm").config.replace(mlp_dims=(8,))
    rewrite(saved, config=config.to_dict())
    with pytest.raises(StorageError, match="do not fit the model it describes"):
        load_model(saved)


def test_a_file_cannot_name_the_code_that_rebuilds_it(saved):
    rewrite(saved, structure={"kind": "os:system"})
    with pytest.raises(StorageError, match="layers of kind 'os:system'; this ctrlab reads factored"):
        load_model(saved)


def test_a_damaged_structure_is_refused(saved):
    rewrite(saved, structure={"kind": "factored"})
    with pytest.raises(StorageError, match="its structure cannot be built"):
        load_model(saved)


def test_data_of_another_schema_is_refused(saved):
    other = FeatureSchema(**{**SCHEMA.to_dict(), "fingerprint": "elsewhere"})
    with pytest.raises(DataError, match="fingerprint small, this dataset has elsewhere"):
        load_model(saved, other)
