"""Gemma 3, Gemma 4 and PaliGemma: pixels and prompts against transformers' own processors, as checkpoints load them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import GemmaTokenizer
from transformers.models.paligemma.processing_paligemma import EXTRA_TOKENS

from edgevlm_export.checkpoints.checkpoint import load_config
from edgevlm_export.joint_processor import join
from edgevlm_export.preprocessing import Preprocessing, load_processor, translate
from edgevlm_export.streaming.inputs import model_inputs
from edgevlm_runtime import images
from edgevlm_runtime.errors import CheckpointError, PromptError, UnsupportedModel
from edgevlm_runtime.text.prompt import PromptEncoder
from edgevlm_runtime.text.tokenizer import Tokenizer
from tests.support import checkpoints
from tests.support.checkpoints import gemma4s
from tests.support.checkpoints.gemmas import TURNS
from tests.support.checkpoints.weights import write_json

NAMED = {"gemma3": TURNS, "gemma4": gemma4s.NAMED}
"""Model type to the tokens that its tokenizer has names for."""


def with_gemmas_tokenizer(folder: Path) -> Path:
    """The checkpoint with a tokenizer of the class that is published: bytes for what it lacks, spaces merged to the
    left, `<bos>` before every text unless told otherwise, line breaks that become one token. Its ids are other ones."""
    config = json.loads((folder / "config.json").read_text())
    pieces = ["▁", "\n", "\n\n", "\n\n\n", *"abcdehinoprstuw?.,'", "▁a", "▁ab", "ab"]
    first = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    merges = [("a", "b"), ("▁", "a"), ("▁a", "b"), ("\n", "\n"), ("\n\n", "\n")]
    named = NAMED.get(config["model_type"], {})
    turns = ["<start_of_turn>", "<end_of_turn>", *named.values()] if named else ["<image>"]
    made = GemmaTokenizer(
        vocab={piece: index for index, piece in enumerate([*first, *pieces])},
        merges=merges,
        extra_special_tokens=named,
        add_bos_token=True,
    )
    made.add_tokens(turns, special_tokens=True)
    if named:
        made.chat_template = (folder / "chat_template.jinja").read_text()
    else:
        made.add_tokens(EXTRA_TOKENS)
    made.save_pretrained(folder)
    stands = (named or {"image_token": "<image>"}).items()
    ids = {name + suffix: made.convert_tokens_to_ids(token) for name, token in stands for suffix in ("_id", "_index")}
    ids = {name: id_ for name, id_ in ids.items() if name in config}
    write_json(folder / "config.json", {**config, **ids})
    return folder


MAKE: dict[str, Callable[[Path], Path]] = {
    "gemma3": lambda folder: checkpoints.gemma3(folder, "window-6"),
    "paligemma": checkpoints.paligemma,
    "gemma3 with Gemma's tokenizer": lambda folder: with_gemmas_tokenizer(checkpoints.gemma3(folder)),
    "gemma4": checkpoints.gemma4,
    "gemma4 with Gemma's tokenizer": lambda folder: with_gemmas_tokenizer(checkpoints.gemma4(folder, "large")),
    "paligemma with Gemma's tokenizer": lambda folder: with_gemmas_tokenizer(checkpoints.paligemma(folder)),
}
TEXTS = st.text("ab \n<>é图", max_size=12)


@pytest.fixture(scope="module", params=MAKE)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKE[request.param](tmp_path_factory.mktemp("checkpoint") / request.param)


@pytest.fixture(scope="module")
def made(folder: Path) -> Preprocessing:
    config = load_config(folder)
    return translate(load_processor(folder, config), config)


@pytest.fixture(scope="module")
def joint(folder: Path) -> Any:
    config = load_config(folder)
    return join(load_processor(folder, config), config)


@pytest.fixture(scope="module")
def prompts(made: Preprocessing) -> PromptEncoder:
    files = made.files
    return PromptEncoder(made.prompt, files["chat_template.jinja"], Tokenizer.from_json(files["tokenizer.json"]))


def picture(number: int = 0) -> Image.Image:
    return Image.fromarray(np.full((20 + number, 30, 3), 25 * number % 256, np.uint8))


def check(prompts: PromptEncoder, made: Preprocessing, joint: Any, messages: list[dict[str, Any]]) -> None:
    """The same tokens, image tokens where the processor has them, each image's of its own."""
    count = sum(part["type"] == "image" for message in messages for part in message["content"])
    process = images.make_processor(made.image)
    pictures = [picture(number) for number in range(count)]
    encoded = prompts.encode(messages, [process(one) for one in pictures])
    expected = model_inputs(joint, messages, pictures)["input_ids"][0].numpy()
    np.testing.assert_array_equal(encoded.token_ids, expected)
    assert len(encoded.images) <= count
    places = np.concatenate([np.arange(span.start, span.stop) for span in encoded.images] or [np.zeros(0, np.int64)])
    np.testing.assert_array_equal(places, np.flatnonzero(expected == made.prompt.image_token_id))


@pytest.mark.parametrize("folder", [name for name in MAKE if "gemma4" not in name], indirect=True, scope="module")
def test_pixels(made: Preprocessing, joint: Any, odd_image: Image.Image) -> None:
    processor = joint.image_processor
    flags = {"do_rescale": False, "do_normalize": False, "do_convert_rgb": True, "return_tensors": "np"}
    expected = processor(images=odd_image, **flags)["pixel_values"]
    pixels = images.make_processor(made.image)(odd_image).feeds["pixels"]
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels.transpose(0, 3, 1, 2), expected)


def _parts(texts: list[str], order: list[bool]) -> list[dict[str, Any]]:
    left = iter(texts)
    return [{"type": "image"} if image else {"type": "text", "text": next(left, "and")} for image in order]


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXTS, max_size=5), order=st.lists(st.booleans(), max_size=5), end=TEXTS)
def test_one_message(made: Preprocessing, joint: Any, prompts: PromptEncoder, texts, order, end) -> None:
    """Images at the start, in the middle, at the end, side by side, none."""
    parts = _parts(texts, order) or [{"type": "text", "text": end}]
    check(prompts, made, joint, [{"role": "user", "content": parts}])


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(TEXTS, min_size=3, max_size=5), order=st.lists(st.booleans(), min_size=1, max_size=5))
def test_conversations(made: Preprocessing, joint: Any, prompts: PromptEncoder, texts, order) -> None:
    """With a system prompt, with images in any turn of the user's; PaliGemma has none of it."""
    messages = [
        {"role": "user", "content": _parts(texts, order)},
        {"role": "assistant", "content": [{"type": "text", "text": texts[0]}]},
        {"role": "user", "content": _parts(texts, order[::-1])},
    ]
    system = {"role": "system", "content": [{"type": "text", "text": texts[1]}]}
    for conversation in (messages, [system, *messages], [system, messages[0]]):
        if joint.chat_template is None:
            with pytest.raises(PromptError, match="answers one question"):
                prompts.render(conversation)
        else:
            check(prompts, made, joint, conversation)


@pytest.mark.parametrize("token", ["<start_of_image>", "<image_soft_token>"])
def test_what_stands_for_an_image_is_no_text(tmp_path: Path, token: str) -> None:
    folder = checkpoints.gemma3(tmp_path / "checkpoint")
    config = load_config(folder)
    made = translate(load_processor(folder, config), config)
    encoder = PromptEncoder(
        made.prompt, made.files["chat_template.jinja"], Tokenizer.from_json(made.files["tokenizer.json"])
    )
    with pytest.raises(PromptError, match=f"message 1 contains '{token}', which stands for an image"):
        encoder.render([{"role": "user", "content": f"a {token} b"}])
    literal = [{"type": "text", "text": f"a {token} b", "literal": True}]
    assert made.prompt.image_token_id not in encoder.encode([{"role": "user", "content": literal}]).token_ids


def _change(folder: Path, file: str, **values: Any) -> None:
    content = json.loads((folder / file).read_text())
    write_json(folder / file, {**content, **values})


@pytest.mark.parametrize(
    ("make", "file", "values", "error", "words"),
    [
        ("gemma3", "preprocessor_config.json", {"do_pan_and_scan": True}, UnsupportedModel, "do_pan_and_scan"),
        (
            "gemma3",
            "processor_config.json",
            {"image_seq_length": 256},
            CheckpointError,
            "image_seq_length is 256, the model makes 16 tokens of an image of 112 x 112 pixels",
        ),
        ("gemma3", "preprocessor_config.json", {"size": {"height": 56, "width": 56}}, CheckpointError, "56 x 56"),
        ("paligemma", "preprocessor_config.json", {"image_seq_length": 7}, CheckpointError, "is 7, the model makes 9"),
    ],
)
def test_what_does_not_fit(
    tmp_path: Path, make: str, file: str, values: Any, error: type[Exception], words: str
) -> None:
    folder = MAKE[make](tmp_path / "checkpoint")
    _change(folder, file, **values)
    config = load_config(folder)
    with pytest.raises(error, match=words) as raised:
        translate(load_processor(folder, config), config)
    assert "\n" not in str(raised.value)


def test_templates_for_a_family_without_chat(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = checkpoints.paligemma(tmp_path / "checkpoint")
    config = load_config(folder)
    with pytest.raises(UnsupportedModel, match="paligemma has no chat"):
        load_processor(folder, config, "{{ messages }}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert "<image>" in load_processor(folder, config).chat_template
    assert "is not used" in caplog.text
