"""What `edgevlm models` says of checkpoints that cannot be read here: dimensions, and the sizes computed from them."""

from __future__ import annotations

import json

import pytest

from edgevlm_export.checkpoints.aliases import ALIASES, model_sizes
from edgevlm_export.checkpoints.checkpoint import load_config
from edgevlm_export.families import FAMILIES
from edgevlm_export.planning.graph_plan import nbytes
from edgevlm_export.planning.plan import plan_export
from edgevlm_export.precision.plans import get_plan
from tests.support import checkpoints, traces
from tools import model_sizes as tool
from tools.published_shapes import PUBLISHED


def test_every_alias_has_a_size():
    assert list(model_sizes()) == list(ALIASES)
    assert {alias.family for alias in ALIASES.values()} <= set(FAMILIES)
    assert set(PUBLISHED) == {alias for alias, model in ALIASES.items() if model.repo_id}


@pytest.mark.parametrize("alias", PUBLISHED)
def test_as_many_parameters_as_its_publisher_says(alias):
    published = PUBLISHED[alias]
    assert model_sizes()[alias].parameters / 1e9 == pytest.approx(published.parameters, rel=published.tolerance)
    assert published.model_type == ALIASES[alias].family


@pytest.mark.parametrize("alias", ["inspector", "smolvlm-256m", "lfm2-vl", "qwen3-vl"])
def test_the_file_is_what_the_tool_writes(alias):
    assert json.loads(tool.TARGET.read_text())[alias] == tool.sizes(tool.config_of(alias))


@pytest.mark.parametrize("family", ["llava", "smolvlm"])
def test_as_large_as_an_export(tmp_path, family):
    """Counted by module and format, a bundle has the bytes that planning its graphs counts, but for rotary tables (and,
    with LLaVA, the last layer of its tower, which nobody reads)."""
    traces.remember()
    folder = getattr(checkpoints, family)(tmp_path / family)
    for precision in map(get_plan, tool.PRECISIONS):
        planned = plan_export(folder, precision, None, lambda *_: None)
        values = [value for graph in planned.graphs.values() for value in graph.model.graph.initializers.values()]
        weights = planned.embedding_bytes + sum(nbytes(value) for value in values if value.name not in {"cos", "sin"})
        assert tool.Model(load_config(folder)).bundle_bytes(precision) == pytest.approx(weights, rel=0.06)
