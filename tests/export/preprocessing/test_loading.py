"""Processor files on disk: what is read from where, and one clear line for each thing that can be wrong."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import CLIPVisionConfig, LlavaConfig, Qwen2Config
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from edgevlm_export.checkpoints.checkpoint import load_config
from edgevlm_export.preprocessing import CheckpointProcessor, load_processor, sentencepiece_model, translate
from edgevlm_runtime.errors import CheckpointError, UnsupportedModel
from edgevlm_runtime.text.tokenizer import Tokenizer

CROP = {"height": 56, "width": 56}


@pytest.fixture
def folder(tmp_path: Path, make_processor: Callable[..., CheckpointProcessor]) -> Path:
    """A LLaVA checkpoint's processor files as transformers saves them."""
    source = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size=CROP)
    parts = make_processor(source, ["<image>"], "<image>")
    source.save_pretrained(tmp_path)
    parts.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(parts.chat_template)
    (tmp_path / "processor_config.json").write_text(json.dumps({"patch_size": 14, "num_additional_image_tokens": 1}))
    return tmp_path


def config(**changes: object) -> LlavaConfig:
    vision = CLIPVisionConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=56, patch_size=14)
    text = Qwen2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=400)
    return LlavaConfig(**{"vision_config": vision, "text_config": text, "image_token_id": 2, **changes})


def fails(action: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        action()
    assert "\n" not in str(raised.value)


def test_a_whole_folder(folder: Path) -> None:
    processor = load_processor(folder, config())
    assert type(processor.image_processor) is CLIPImageProcessorPil
    assert processor.settings["patch_size"] == 14
    made = translate(processor, config())
    assert made.image.kind == "fixed"
    assert made.image.options["tokens"] == 16
    assert (made.prompt.image_token, made.prompt.image_token_id) == ("<image>", 2)
    assert (made.prompt.bos_token, made.prompt.eos_token) == ("<s>", "</s>")
    assert json.loads(json.dumps(made.image.options)) == made.image.options
    assert Tokenizer.from_json(made.files["tokenizer.json"]).encode("what <image>") == processor.tokenizer.encode(
        "what <image>"
    )


def test_torchvision_is_not_needed(folder: Path) -> None:
    load_processor(folder, config())
    assert "torchvision" not in sys.modules


def test_processor_config_may_hold_the_image_processor(folder: Path) -> None:
    source = SmolVLMImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    settings = {"image_seq_len": 4, "image_processor": source.to_dict()}
    (folder / "processor_config.json").write_text(json.dumps(settings))
    (folder / "preprocessor_config.json").unlink()
    assert type(load_processor(folder, config()).image_processor) is SmolVLMImageProcessorPil


def test_fast_processors_are_read_as_pil(folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    path.write_text(path.read_text().replace('"CLIPImageProcessor"', '"CLIPImageProcessorFast"'))
    assert type(load_processor(folder, config()).image_processor) is CLIPImageProcessorPil


@pytest.mark.parametrize("place", ["chat_template.json", "tokenizer_config.json", "processor_config.json"])
def test_templates_in_older_places(folder: Path, place: str) -> None:
    (folder / "chat_template.jinja").unlink()
    path = folder / place
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, "chat_template": "older {{ messages }}"}))
    assert load_processor(folder, config()).chat_template == "older {{ messages }}"


def test_the_default_of_several_templates(folder: Path) -> None:
    more = folder / "additional_chat_templates"
    more.mkdir()
    (more / "tools.jinja").write_text("tools")
    assert load_processor(folder, config()).chat_template == (folder / "chat_template.jinja").read_text()


def test_a_template_of_the_callers(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    assert load_processor(folder, config(), chat_template="mine").chat_template == "mine"


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("preprocessor_config.json", r"no image processor: .*: preprocessor_config.json is missing"),
        ("tokenizer.json", r"no tokenizer: .*: tokenizer.json is missing"),
        ("chat_template.jinja", r"no chat template: "),
    ],
)
def test_missing_files(folder: Path, missing: str, words: str) -> None:
    (folder / missing).unlink()
    fails(lambda: load_processor(folder, config()), CheckpointError, words + ".*" if words.endswith(" ") else words)


@pytest.mark.parametrize(
    ("damaged", "what"),
    [
        ("preprocessor_config.json", "image processor"),
        ("processor_config.json", "processor settings"),
        ("tokenizer.json", "tokenizer"),
        ("tokenizer_config.json", "tokenizer"),
    ],
)
def test_damaged_files(folder: Path, damaged: str, what: str) -> None:
    (folder / damaged).write_text('{"half": ')
    fails(
        lambda: load_processor(folder, config()), CheckpointError, f"cannot read the {what}: {re.escape(str(folder))}"
    )


def test_an_unsupported_image_processor(folder: Path) -> None:
    ViTImageProcessorPil().save_pretrained(folder)
    processor = load_processor(folder, config())
    words = "image processor not supported: ViTImageProcessor: known are CLIPImageProcessor, .*SmolVLMImageProcessor"
    fails(lambda: translate(processor, config()), UnsupportedModel, words)


def test_another_models_image_token(folder: Path) -> None:
    processor = load_processor(folder, config())
    fails(lambda: translate(processor, config(image_token_id=77)), CheckpointError, "'<image>' is 2, in the model 77")


def test_a_tokenizer_without_the_image_token(folder: Path) -> None:
    (folder / "processor_config.json").write_text(json.dumps({"image_token": "<picture>"}))
    processor = load_processor(folder, config())
    fails(lambda: translate(processor, config()), CheckpointError, "does not know the image token '<picture>'")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for %}", "does not compile"),
        ("{{ messages[0]['content'][0]['text'] }}", "shows 0 images"),
        ("<image>{{ messages[0]['role'] }}", "leaves out the text"),
        ("{{ raise_exception('only text, please') }}", "only text, please"),
    ],
)
def test_templates_that_do_not_work_with_images(folder: Path, template: str, words: str) -> None:
    processor = load_processor(folder, config(), chat_template=template)
    fails(
        lambda: translate(processor, config()),
        CheckpointError,
        f"chat template not usable: .*{words}.*: pass --chat-template",
    )


def test_padding_and_truncation_stay_behind(folder: Path) -> None:
    processor = load_processor(folder, config())
    processor.tokenizer.backend_tokenizer.enable_truncation(4)
    processor.tokenizer.backend_tokenizer.enable_padding(length=64)
    content = json.loads(translate(processor, config()).files["tokenizer.json"])
    assert content["truncation"] is None
    assert content["padding"] is None


def test_settings_outside_the_tokenizer_file(folder: Path) -> None:
    processor = load_processor(folder, config())
    processor.tokenizer.split_special_tokens = True
    fails(lambda: translate(processor, config()), UnsupportedModel, "split_special_tokens")
    processor.tokenizer.split_special_tokens = False
    processor.tokenizer.clean_up_tokenization_spaces = True  # transformers ignores it for BPE
    translate(processor, config())
    processor.tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    fails(lambda: translate(processor, config()), UnsupportedModel, "clean_up_tokenization_spaces")


SIMPLE = "{{ bos_token }}{{ messages[0]['content'][-1]['text'] }}<image>"


def of_sentencepiece(checkpoint: Path, tmp_path: Path, model: bytes) -> Path:
    """A checkpoint of the first days: tokenizer.model, no tokenizer.json; the image token is the config's last row."""
    folder = Path(shutil.copytree(checkpoint, tmp_path / "old"))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(model)
    stated = json.loads((folder / "tokenizer_config.json").read_text())
    image = {"content": "<image>", "special": True, "lstrip": False, "rstrip": False, "normalized": False}
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "chat_template": stated.get("chat_template") or SIMPLE,
        "added_tokens_decoder": {"320": {**image, "single_word": False}},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_a_sentencepiece_model_without_the_package(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would name another package."""
    monkeypatch.setattr(sentencepiece_model, "find_spec", lambda _: None)
    folder = of_sentencepiece(tiny_checkpoint, tmp_path, b"not read")
    with pytest.raises(CheckpointError, match=r"SentencePiece model.*tokenizer\.model: .*pip install sentencepiece"):
        load_processor(folder, load_config(folder))


def test_a_sentencepiece_model_is_converted(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Where the package is installed: the words are SentencePiece's own."""
    package = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    texts = [f"describe this image {number} what is in the picture is there a scratch no yes" for number in range(99)]
    package.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=320,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=1.0,
        hard_vocab_limit=False,
        normalization_rule_name="identity",  # as Llama's
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    folder = of_sentencepiece(tiny_checkpoint, tmp_path, model.getvalue())
    tokenizer = load_processor(folder, load_config(folder)).tokenizer
    own = package.SentencePieceProcessor(model_proto=model.getvalue())
    for text in ("is there a scratch", "describe this image 7", "naïve 9 µm", "two  spaces\nand a line "):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == own.encode(text)
