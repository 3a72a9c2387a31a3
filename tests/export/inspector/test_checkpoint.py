"""The shipped checkpoint: complete, small, loaded by transformers alone, and right about parts it never saw."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from edgevlm_export import inspection
from edgevlm_export.inspector import checkpoint_path
from edgevlm_export.inspector.evaluate import Inspector, Result, follow_up, opening, run, table

FILES = {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
BARS = {
    "exists": 0.95,
    "type": 0.95,
    "location": 0.95,
    "holes": 0.95,
    "screws": 0.95,
    "colour": 0.95,
    "code": 0.9,
    "report": 0.9,
}
"""Twenty questions of each kind: one may be wrong, two of the harder kinds. The model card has measured shares."""


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    return Inspector(checkpoint_path())


@pytest.fixture(scope="module")
def answered(inspector: Inspector) -> list[Result]:
    return run(inspector, 160)


def share(results: list[Result]) -> float:
    return sum(result.right for result in results) / len(results)


def test_has_every_file_and_at_most_12_megabytes() -> None:
    found = {path.name: path.stat().st_size for path in checkpoint_path().iterdir()}
    assert set(found) == FILES
    assert sum(found.values()) <= 12_000_000


def test_weights_are_float16_and_finite() -> None:
    with safe_open(checkpoint_path() / "model.safetensors", framework="pt") as weights:
        tensors = [weights.get_tensor(name) for name in weights.keys()]  # noqa: SIM118
    assert {tensor.dtype for tensor in tensors} == {torch.float16}
    assert all(tensor.isfinite().all() for tensor in tensors)


def test_is_a_llava_of_clip_and_llama() -> None:
    config = json.loads((checkpoint_path() / "config.json").read_text())
    assert config["architectures"] == ["LlavaForConditionalGeneration"]
    kinds = (config["model_type"], config["vision_config"]["model_type"], config["text_config"]["model_type"])
    assert kinds == ("llava", "clip_vision_model", "llama")


def test_transformers_alone_loads_and_runs_it(tmp_path: Path) -> None:
    """In a process that cannot import this project, with the usual messages."""
    example = next(inspection.examples("test", 1))
    example.image.save(tmp_path / "part.png")
    code = f"""
import sys
sys.modules["edgevlm_export"] = None
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
processor = AutoProcessor.from_pretrained({str(checkpoint_path())!r})
model = AutoModelForImageTextToText.from_pretrained({str(checkpoint_path())!r}, dtype="float32")
content = [{{"type": "image", "image": Image.open("part.png")}}, {{"type": "text", "text": {example.question!r}}}]
inputs = processor.apply_chat_template([{{"role": "user", "content": content}}], add_generation_prompt=True,
                                       tokenize=True, return_dict=True, return_tensors="pt")
tokens = model.generate(**inputs)
print("answer:", processor.decode(tokens[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip().splitlines()[-1] == f"answer: {example.answer}"


def test_an_image_is_144_tokens_and_the_prompt_is_what_training_saw(inspector: Inspector) -> None:
    example = next(inspection.examples("test", 1))
    chat = follow_up(opening(example.image, "Count the holes."), "2", "Name the defect.")
    text = inspector.processor.apply_chat_template(chat, add_generation_prompt=True)
    assert text == "<s><|user|><image>Count the holes.<|assistant|>2</s><|user|>Name the defect.<|assistant|>"
    tokens = inspector.processor(images=example.image, text=text, return_tensors="pt")["input_ids"][0]
    assert (tokens == inspector.model.config.image_token_id).sum() == 144
    assert (tokens == inspector.model.config.text_config.bos_token_id).sum() == 1


@pytest.mark.parametrize("kind", inspection.KINDS)
def test_answers_unseen_parts_exactly(answered: list[Result], kind: str) -> None:
    asked, right = table(answered)[kind]
    assert asked == 20
    assert right / asked >= BARS[kind]


def test_writes_the_record_of_unseen_parts(inspector: Inspector) -> None:
    assert share(run(inspector, 20, records=True)) >= 0.95


def test_generates_the_same_alone_and_in_a_padded_batch(inspector: Inspector, answered: list[Result]) -> None:
    for result in answered[:8]:
        alone = inspector.answer([opening(result.example.image, result.example.question)])
        assert alone == [result.answer]


def test_answers_a_second_question_in_the_same_chat(inspector: Inspector) -> None:
    assert share(run(inspector, 80, turns=2)) >= 0.95


@pytest.mark.parametrize("images", ["blank", "shuffled"])
def test_without_the_right_picture_it_can_only_guess(inspector: Inspector, images: str) -> None:
    """Chance differs by kind: half of yes/no, a third of type and location ("none"), half of screws ("0")."""
    counts = table(run(inspector, 160, images=images))
    asked, right = counts["all"]
    assert right / asked < 0.45
    assert counts["report"][1] <= 1
    assert counts["colour"][1] <= 9


def test_different_pictures_get_different_answers(inspector: Inspector) -> None:
    images = [example.image for example in inspection.examples("test", 24)]
    answers = inspector.answer([opening(image, "Write an inspection report.") for image in images])
    assert len(set(answers)) >= 23
