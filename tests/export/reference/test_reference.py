"""The PyTorch reference: transformers' own answers for all three families, without torchvision."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.video_utils import VideoMetadata

from edgevlm_export.joint_processor import load_joint_processor
from edgevlm_export.reference import Reference, ReferenceTooLarge, memory, weight_bytes
from edgevlm_runtime.errors import CheckpointError
from tests.support import checkpoints

MAKERS = {"llava": checkpoints.llava, "smolvlm": checkpoints.smolvlm, "qwen2_5_vl": checkpoints.qwen2_5_vl}


def noise(seed: int, height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module", params=MAKERS, ids=str)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("reference") / request.param
    return Reference.load(str(MAKERS[request.param](folder)))


@pytest.mark.parametrize("images", [1, 2, 0])
def test_teacher_forcing_agrees_with_generation(reference: Reference, images: int) -> None:
    pictures = [noise(1, 50, 70), noise(2, 120, 33)][:images]
    answer = reference.answer("what is in the picture", pictures, max_new_tokens=8)
    ids, logits = reference.prompt_logits("what is in the picture", pictures, answer.token_ids)
    assert 1 <= len(answer.token_ids) <= 8
    assert ids.shape == logits.shape[:1] == (answer.prompt_tokens + len(answer.token_ids),)
    assert tuple(ids[answer.prompt_tokens :]) == answer.token_ids
    assert tuple(logits[answer.prompt_tokens - 1 : -1].argmax(-1)) == answer.token_ids


def test_embeddings_fill_the_image_tokens(reference: Reference) -> None:
    """What `image_embeddings` gives is what the model itself puts in the prompt's place, row by row."""
    picture = noise(3, 90, 60)
    inputs = reference.inputs("describe", [picture])
    seen: list[torch.Tensor] = []
    stack = "model.text_model" if reference.model.config.model_type == "smolvlm" else "model.language_model"
    hook = reference.model.get_submodule(stack).register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.inference_mode():
        reference.model(**inputs)
    hook.remove()
    places = inputs["input_ids"][0] == reference.model.config.image_token_id
    features, embeddings = reference.encode_image(picture)
    np.testing.assert_allclose(embeddings, seen[0][0][places].numpy(), rtol=0, atol=1e-6)
    assert features.ndim == 2
    assert features.shape[0] % embeddings.shape[0] == 0


def test_files_messages_and_images_are_the_same(reference: Reference, tmp_path: Path) -> None:
    picture = noise(4, 40, 40)
    picture.save(tmp_path / "part.png")
    content = [{"type": "image"}, {"type": "text", "text": "describe"}]
    messages = [{"role": "user", "content": content}]
    answers = {
        reference.answer("describe", [picture], max_new_tokens=6).token_ids,
        reference.answer("describe", [tmp_path / "part.png"], max_new_tokens=6).token_ids,
        reference.answer(messages, [str(tmp_path / "part.png")], max_new_tokens=6).token_ids,
    }
    assert len(answers) == 1
    assert messages == [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "describe"}]}]


def test_it_is_what_transformers_users_get(tiny_checkpoint: Path) -> None:
    """LLaVA's AutoProcessor needs no torchvision, so the whole documented path can be compared with."""
    model = AutoModelForImageTextToText.from_pretrained(tiny_checkpoint, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(tiny_checkpoint, backend="pil")
    picture = noise(5, 77, 31)
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "is there a scratch"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        expected = model.generate(**inputs, max_new_tokens=10, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    answer = Reference.load(str(tiny_checkpoint)).answer("is there a scratch", [picture], max_new_tokens=10)
    assert list(answer.token_ids) == expected.tolist()
    assert answer.text == processor.decode(expected, skip_special_tokens=True)


def test_a_model_too_large_is_refused_in_one_line(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weight_bytes(tiny_checkpoint) > 4 * 10_000
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(ReferenceTooLarge, match=r"PyTorch needs about .* GiB are available"):
        Reference.load(str(tiny_checkpoint))


def test_damaged_weights_are_a_clear_error(tiny_checkpoint: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError) as caught:
        Reference.load(str(copy))
    assert "copy" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_smolvlm_makes_no_use_of_num2words_for_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processor in transformers cannot be made without that package, and calls it for a video alone."""
    from transformers.models.smolvlm import processing_smolvlm

    folder = checkpoints.smolvlm(tmp_path / "smolvlm")
    config, words = AutoConfig.from_pretrained(folder), Mock(return_value="two")
    ask = {"text": ["<image>is there a scratch", "<image>where"], "images": [[noise(1, 40, 90)], [noise(2, 50, 30)]]}
    frames = {"pixel_values": np.zeros((1, 2, 3, 8, 8)), "video_metadata": [VideoMetadata(2, fps=1.0, duration=2.0)]}

    monkeypatch.setattr(processing_smolvlm, "num2words", words)
    expected = load_joint_processor(folder, config)(**ask, padding=True)
    assert not words.called

    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    without = load_joint_processor(folder, config)
    found = without(**ask, padding=True)
    assert found["input_ids"] == expected["input_ids"]
    for mine, theirs in zip(found["pixel_values"], expected["pixel_values"], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    frames["video_metadata"][0].frames_indices = [0, 1]
    with pytest.raises(ImportError, match=r"a video of 2 frames: .* the package num2words"):
        without.replace_video_token(frames, 0)
