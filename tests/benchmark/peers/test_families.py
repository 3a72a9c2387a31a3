"""What peers do for one architecture and not for another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from benchmarks.peers import onnxruntime_genai, openvino, openvino_genai
from benchmarks.peers.base import PeerError, Room
from benchmarks.peers.openvino import whole_image
from benchmarks.peers.transformers_exporters import family
from tests.support import checkpoints


@pytest.fixture(scope="module")
def tiny_smolvlm(tmp_path_factory):
    return checkpoints.smolvlm(tmp_path_factory.mktemp("checkpoint") / "tiny-smolvlm")


def load(checkpoint):
    return AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()


def config_of(folder: Path, **config) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_one_table_is_asked_for_only_where_the_model_ties_it(tmp_path):
    """The builder refuses the setting for other models."""
    tied = onnxruntime_genai.extra_options(config_of(tmp_path / "tied", tie_word_embeddings=True))
    apart = onnxruntime_genai.extra_options(config_of(tmp_path / "apart", tie_word_embeddings=False))
    assert set(tied) - set(apart) == {"shared_embeddings=true"}
    assert set(apart) < set(tied)


@pytest.mark.parametrize(("kind", "folder"), [("llava", "venv"), ("smolvlm", "venv-transformers-4.57.6")])
def test_environments_of_both_lie_side_by_side(tmp_path, kind, folder):
    room = Room(tmp_path, kind)
    config_of(room.checkpoint, model_type=kind)
    assert openvino.python(room).relative_to(tmp_path).parts[:2] == ("openvino", folder)


def test_openvino_is_installed_with_the_transformers_that_its_converter_takes(tmp_path, monkeypatch):
    asked = {}

    def make_environment(room, peer, requirements, shown, environment):
        asked[room.shape] = requirements
        return {}

    monkeypatch.setattr(openvino, "make_environment", make_environment)
    monkeypatch.setattr(openvino, "run", lambda *_: None)
    for kind in ("llava", "smolvlm"):
        room = Room(tmp_path, kind)
        config_of(room.checkpoint, model_type=kind)
        openvino.install(room)
    assert set(asked["smolvlm"]) - set(asked["llava"]) == {"transformers==4.57.6"}


def test_what_the_pipeline_does_not_know_is_not_ready(tmp_path, monkeypatch):
    """The models are there; OpenVINO GenAI's own error is why nothing is measured."""

    def refuse(command, log):
        raise PeerError("python ended with 1: Unsupported 'smolvlm' VLM model type")

    room = Room(tmp_path, "smolvlm")
    config_of(room.checkpoint, model_type="smolvlm")
    monkeypatch.setattr(openvino, "convert", lambda *_: None)
    monkeypatch.setattr(openvino_genai, "run", refuse)
    with pytest.raises(PeerError, match="Unsupported 'smolvlm'"):
        openvino_genai.convert(room, openvino_genai.VARIANTS[0])


@pytest.mark.parametrize("checkpoint", ["tiny_checkpoint", "tiny_smolvlm"])
def test_tower_and_projector_are_those_of_the_whole_model(checkpoint, request):
    """What is exported as one graph gives what the model itself puts into its prompt."""
    folder = request.getfixturevalue(checkpoint)
    about, model = family(folder), load(folder)
    size = model.config.vision_config.image_size
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (expected,) = model.get_image_features(pixel_values=about.images(pixels)).pooler_output
        torch.testing.assert_close(about.features(model.model, pixels)[0], expected)


def test_an_architecture_without_known_inputs_is_one_line(tmp_path):
    with pytest.raises(PeerError, match="'mllama': there are llava, smolvlm"):
        family(config_of(tmp_path / "other", model_type="mllama"))


def test_openvino_is_told_the_places_that_transformers_computes(tiny_smolvlm):
    """Of a tile without padding: the embedding of each patch's own place, none masked."""
    model = load(tiny_smolvlm).model.vision_model
    size, patch = model.config.image_size, model.config.patch_size
    told = {name: torch.from_numpy(value) for name, value in whole_image((size, size), patch).items()}
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        patches = model.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        expected = model.embeddings(pixels, patch_attention_mask=told["patch_attention_mask"])
        found = patches + model.embeddings.position_embedding(told["patch_position_ids"])
        torch.testing.assert_close(found, expected)
        whole = model(pixels).last_hidden_state
        torch.testing.assert_close(model(pixels, told["patch_attention_mask"]).last_hidden_state, whole)
