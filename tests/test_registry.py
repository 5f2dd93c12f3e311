"""Registries: entries by name, and config classes with their builders."""

from dataclasses import dataclass

import pytest

from ctrlab.config import Config
from ctrlab.data.catalog import DATASETS
from ctrlab.errors import UnknownNameError
from ctrlab.figures.gallery import FIGURES
from ctrlab.models.configs import MODELS
from ctrlab.registry import ConfigRegistry


@pytest.fixture
def shapes():
    registry = ConfigRegistry("shape")

    @registry.register("circle", builder="math:hypot", title="Circle")
    @dataclass(frozen=True, kw_only=True)
    class Circle(Config):
        radius: float = 1.0

    return registry


def test_a_miss_lists_the_names_that_exist(shapes):
    with pytest.raises(UnknownNameError, match="no shape is called 'square'; there are circle"):
        shapes["square"]


def test_a_builder_is_imported_when_asked_for(shapes):
    assert shapes["circle"].builder()(3, 4) == 5


def test_an_entry_is_found_by_its_config(shapes):
    assert shapes.entry_for(shapes["circle"].config_class()).name == "circle"


def test_a_name_cannot_be_registered_twice(shapes):
    with pytest.raises(ValueError, match="registered twice"):
        shapes.register("circle", builder="math:hypot", title="Again")(Config)


def test_figures_known_datasets_and_methods_name_what_exists_in_the_same_words():
    for registry in (FIGURES, DATASETS, MODELS):
        with pytest.raises(UnknownNameError, match=f"no {registry.kind} is called 'pie'; there are {registry.names()[0]}, "):
            registry["pie"]
        assert len(registry) == len(registry.names()) == len(list(registry))
