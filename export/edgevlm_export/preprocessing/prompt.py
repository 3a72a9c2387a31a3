"""Tokenizer and chat template as files of the bundle, and the manifest's `PromptFormat`."""

from __future__ import annotations

import json

from transformers import PreTrainedConfig

from edgevlm_export.preprocessing.chat_template import HINT, shown_image, special_tokens
from edgevlm_export.preprocessing.loading import CheckpointProcessor
from edgevlm_runtime.bundle.manifest import ImageProcessing, PromptFormat
from edgevlm_runtime.errors import CheckpointError, PromptError, UnsupportedModel
from edgevlm_runtime.text.prompt import PromptEncoder
from edgevlm_runtime.text.tokenizer import Tokenizer

TOKENIZER = "tokenizer.json"
CHAT_TEMPLATE = "chat_template.jinja"


def prompt_files(processor: CheckpointProcessor) -> dict[str, str]:
    """`tokenizer.json` and `chat_template.jinja` with their text.

    The tokenizer is the one that transformers built, not the checkpoint's file: transformers adds tokens and replaces
    parts of some tokenizers when it loads them. Raises `UnsupportedModel` for what is not in the file format.
    """
    tokenizer = processor.tokenizer
    if getattr(tokenizer, "split_special_tokens", False):
        raise UnsupportedModel(f"tokenizer setting not supported: split_special_tokens: {processor.folder}")
    if _cleans_up(tokenizer):
        raise UnsupportedModel(f"tokenizer setting not supported: clean_up_tokenization_spaces: {processor.folder}")
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["truncation"] = content["padding"] = None
    return {
        TOKENIZER: json.dumps(content, ensure_ascii=False, separators=(",", ":")),
        CHAT_TEMPLATE: processor.chat_template,
    }


def prompt_format(
    processor: CheckpointProcessor, config: PreTrainedConfig, image: ImageProcessing, files: dict[str, str]
) -> PromptFormat:
    """The manifest's entry, tried out on one message with an image.

    Raises `CheckpointError` when tokenizer, template and model disagree about the image token.
    """
    token = image.options["image_token"]
    tokenizer = Tokenizer.from_json(files[TOKENIZER])
    token_id = tokenizer.token_id(token)
    if token_id is None or tokenizer.encode(token * 2).count(token_id) != 2:
        raise CheckpointError(f"the tokenizer does not know the image token {token!r}: {processor.folder}")
    if token_id != config.image_token_id:
        raise CheckpointError(
            f"tokenizer and model do not belong together: {processor.folder}: the image token {token!r} is {token_id}, "
            f"in the model {config.image_token_id}"
        )
    special = special_tokens(processor.tokenizer)
    result = PromptFormat(
        chat_template=CHAT_TEMPLATE,
        tokenizer=TOKENIZER,
        image_token=shown_image(config, processor.tokenizer) or token,
        image_token_id=token_id,
        bos_token=special.pop("bos_token", None),
        eos_token=special.pop("eos_token", None),
        template_variables=special,
        template_given=processor.template_given,
        flat_image=processor.flat_image,
    )
    _try(result, files, tokenizer, processor)
    return result


def _try(result: PromptFormat, files: dict[str, str], tokenizer: Tokenizer, processor: CheckpointProcessor) -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "What is this?"}]
    try:
        encoder = PromptEncoder(result, files[CHAT_TEMPLATE], tokenizer)
        encoder.render([{"role": "user", "content": parts}])
    except PromptError as error:
        raise CheckpointError(f"chat template not usable: {processor.folder}: {error}: {HINT}") from error


def _cleans_up(tokenizer: object) -> bool:
    """Whether decoding takes spaces out afterwards; transformers does it for few tokenizers (not for BPE by itself)."""
    if not getattr(tokenizer, "clean_up_tokenization_spaces", False):
        return False
    is_bpe = type(tokenizer.backend_tokenizer.model).__name__ == "BPE"  # type: ignore[attr-defined]
    forced = getattr(tokenizer, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False)
    return bool(forced) or not is_bpe
