"""The model's diagram: everything in it, named as elsewhere, and nothing that a name could break."""

import re

import pytest

from ctrlab.compression.surgery import compress_model
from ctrlab.data.schema import FeatureSchema
from ctrlab.figures.diagram import describe_model_diagram, model_diagram, words
from ctrlab.models.configs import MODELS
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressionSpec
from tests.support.small_models import make_model, spectra_of


def boxes(source):
    """{id: label} of the diagram's boxes."""
    return dict(re.findall(r'^    (b\d+)[(\[]+"(.*)"[)\]]+$', source, flags=re.MULTILINE))


@pytest.mark.parametrize("name", MODELS.names())
def test_parameters_of_the_blocks_are_those_of_the_model(name):
    model = make_model(name)
    profile = profile_model(model)
    assert sum(block.cost.parameters for block in profile.blocks) == sum(p.numel() for p in model.parameters())
    assert sum(block.cost.macs for block in profile.blocks) == profile.cost.macs


@pytest.mark.parametrize("name", MODELS.names())
def test_every_block_has_a_box_and_every_edge_two_ends(name):
    profile = profile_model(make_model(name))
    source = model_diagram(profile)
    found = boxes(source)
    assert len(found) == len(profile.blocks)
    edges = re.findall(r"^    (b\d+) --> (b\d+)$", source, flags=re.MULTILINE)
    assert len(edges) == sum(len(block.sources) for block in profile.blocks)
    assert {end for edge in edges for end in edge} == set(found)


@pytest.mark.parametrize("name", MODELS.names())
def test_every_layer_of_the_spectra_lies_in_one_block(name):
    profile = profile_model(make_model(name))
    inside = [layer.layer_name for block in profile.blocks for layer in profile.layers_of(block.name)]
    assert len(inside) == len(set(inside))
    assert set(inside) >= {layer.layer_name for layer in profile.layers if layer.kind != "other"}


def test_boxes_name_layers_as_the_spectra_do():
    source = model_diagram(profile_model(make_model("deepfm")))
    assert "mlp.0 \N{MIDDLE DOT} 40 \N{RIGHTWARDS ARROW} 32" in source
    assert "embedding.ad \N{MIDDLE DOT} 300 \N{MULTIPLICATION SIGN} 8" in source


@pytest.mark.parametrize("name", MODELS.names())
def test_a_compressed_model_is_drawn_in_its_own_form(name):
    model = make_model(name)
    ranks = {layer.layer_name: min(2, layer.out_features) for layer in profile_model(model).compressible}
    small = compress_model(model, CompressionSpec.of(ranks), spectra_of(model)).model
    profile = profile_model(small)
    assert len(boxes(model_diagram(profile))) == len(profile.blocks)
    assert sum(block.cost.parameters for block in profile.blocks) == sum(p.numel() for p in small.parameters())


@pytest.mark.parametrize(
    "hostile", ['a"]; click b0 "javascript:alert(1)"', "<img src=x onerror=alert(1)>", "end", "%%{init}%%", "#quot;", "`**x**`"]
)
def test_a_field_may_have_any_name(hostile):
    schema = FeatureSchema(field_names=(hostile, "other"), field_dims=(50, 40), fingerprint="hostile")
    source = model_diagram(profile_model(make_model("fm", schema=schema)))
    label = next(label for label in boxes(source).values() if "other" in label)
    shown = re.sub(r"#(\d+);", lambda code: chr(int(code[1])), label)
    assert f"embedding.{hostile}" in shown
    assert not set('"<>`%;[]{}()&') & set(re.sub(r"#\d+;|<br/>", "", label))


def test_the_sentence_says_where_the_parameters_are():
    model = make_model("deepfm")
    share = sum(p.numel() for p in model.embedding.parameters()) / sum(p.numel() for p in model.parameters())
    sentence = describe_model_diagram(profile_model(model))
    assert f"{share:.0%}".rstrip("%") in sentence
    assert "embedding (field embedding)" in sentence


@pytest.mark.parametrize(
    ("name", "said"), [("FieldEmbedding", "field embedding"), ("InnerProductFM", "inner product FM"), ("MLP", "MLP")]
)
def test_classes_are_named_in_words(name, said):
    assert words(name) == said
