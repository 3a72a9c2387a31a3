"""The model repository, checked by Triton's own description of a configuration where tritonclient is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgevlm
from edgevlm.triton.repository import INPUTS, MODEL, OUTPUTS, RepositoryOptions, config, write_repository
from edgevlm_runtime.errors import EdgeVLMError


def options(bundle: Path, folder: Path, **more: object) -> RepositoryOptions:
    return RepositoryOptions(bundle=bundle, folder=folder, name="parts", **more)  # type: ignore[arg-type]


def test_the_bundle_in_it_answers(tiny_bundle: Path, tmp_path: Path) -> None:
    model = write_repository(options(tiny_bundle, tmp_path / "models"))
    assert (model / "1" / "model.py").read_bytes() == MODEL.read_bytes()
    ours, theirs = (
        edgevlm.load(place).ask(None, "hello", max_new_tokens=3) for place in (tiny_bundle, model / "1/bundle")
    )
    assert ours.token_ids == theirs.token_ids


def test_what_is_there_stays(tiny_bundle: Path, tmp_path: Path) -> None:
    write_repository(options(tiny_bundle, tmp_path))
    with pytest.raises(EdgeVLMError, match="not empty"):
        write_repository(options(tiny_bundle, tmp_path))
    write_repository(options(tiny_bundle, tmp_path, force=True))
    with pytest.raises(EdgeVLMError, match="in the bundle"):
        write_repository(options(tiny_bundle, tiny_bundle))
    with pytest.raises(EdgeVLMError, match="no name for a model"):
        RepositoryOptions(bundle=tiny_bundle, folder=tmp_path, name='x" backend: "onnxruntime')


def test_the_configuration_is_one_of_tritons(tiny_bundle: Path, tmp_path: Path) -> None:
    messages = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    text_format = pytest.importorskip("google.protobuf.text_format")
    loading = {"provider": 'a "quoted" name', "threads": 2}
    made = config(options(tiny_bundle, tmp_path, instances=3, loading=loading))
    found = text_format.Parse(made, messages.ModelConfig())
    assert (found.name, found.backend, found.max_batch_size) == ("parts", "python", 0)
    assert found.model_transaction_policy.decoupled
    assert [(one.name, list(one.dims), one.optional) for one in found.input] == [
        (name, [size], optional) for name, _, size, optional in INPUTS
    ]
    assert [one.name for one in found.output] == [name for name, _, _ in OUTPUTS]
    assert found.instance_group[0].count == 3
    assert {name: one.string_value for name, one in found.parameters.items()} == {
        name: str(value) for name, value in loading.items()
    }
