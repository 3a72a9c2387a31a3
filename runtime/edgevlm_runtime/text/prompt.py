"""Messages and images to the tokens of a prompt.

    prompts = PromptEncoder.load(folder, manifest.prompt)       # once for each bundle
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
    encoded = prompts.encode(messages, [prepared_image])        # Prompt
    encoded.token_ids    # int64 [tokens]
    encoded.images       # runs of image tokens: ImageSpan(start, length, image, row, grid), in order
    encoded.text         # what was tokenized

Content is a text or a list of parts, `{"type": "text", "text": ...}` or `{"type": "image"}`; the n-th image part in the
conversation stands for the n-th image. The chat template is rendered with one image token for each image, each image
token is replaced by that image's placeholder, and the text is tokenized, as transformers' processors do it.

What users write is not escaped: special tokens written out in a text (`<|im_end|>`) become those tokens, in
transformers as here. The image token alone is refused in a message's text, because it would shift every image after it.
`encode_text` takes a prompt that is rendered already; there the image token is how an image is placed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.bundle.manifest import PromptFormat
from edgevlm_runtime.errors import BundleIncomplete, PromptError
from edgevlm_runtime.images.base import PreparedImage
from edgevlm_runtime.text.layout import ImageSpan, ImageSpans, Prompt
from edgevlm_runtime.text.template import ChatTemplate
from edgevlm_runtime.text.tokenizer import Tokenizer

Message: TypeAlias = Mapping[str, Any]


class PromptEncoder:
    """Chat template and tokenizer of one bundle. May be shared between threads."""

    def __init__(self, prompt_format: PromptFormat, template: str, tokenizer: Tokenizer) -> None:
        """`template` is the text of the chat template. Raises `PromptError` when it does not compile."""
        special = {"bos_token": prompt_format.bos_token, "eos_token": prompt_format.eos_token}
        variables = {name: token for name, token in special.items() if token is not None}
        self.format = prompt_format
        self.tokenizer = tokenizer
        self._template = ChatTemplate(template, {**variables, **prompt_format.template_variables})

    @classmethod
    def load(cls, folder: str | os.PathLike[str], prompt_format: PromptFormat) -> PromptEncoder:
        """Read template and tokenizer of the bundle in `folder`. Raises `BundleError` when they cannot be read."""
        path = Path(folder) / prompt_format.chat_template
        try:
            template = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BundleIncomplete(f"cannot read the chat template: {path}: export the model again") from error
        return cls(prompt_format, template, Tokenizer.load(Path(folder) / prompt_format.tokenizer))

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The conversation as text, with one image token for each image.

        Raises `PromptError` for messages of another form, and when the template refuses them, leaves out an image or
        does not show the last user message's text.
        """
        plain = [_plain(message, index) for index, message in enumerate(messages)]
        if not plain:
            raise PromptError("no messages: give at least one")
        for index, text in _texts(plain):
            if self.format.image_token in text:
                raise PromptError(
                    f"message {index + 1} contains {self.format.image_token!r}, which stands for an image: "
                    'take it out, or give the image as a part {"type": "image"}'
                )
        rendered = self._template.render(plain, add_generation_prompt)
        wanted, found = count_images(plain), rendered.count(self.format.image_token)
        if found != wanted:
            raise PromptError(f"the chat template shows {found} images, the messages have {wanted}")
        _check_question(plain, rendered)
        return rendered

    def encode(
        self, messages: Sequence[Message], images: Sequence[PreparedImage] = (), add_generation_prompt: bool = True
    ) -> Prompt:
        """Tokens of the conversation.

        Raises `PromptError` as `render` does, and when there are more or fewer `images` than image parts.
        """
        text = self.render(messages, add_generation_prompt)
        wanted = count_images(messages)
        if wanted != len(images):
            raise PromptError(f"the messages have {wanted} image parts, but {len(images)} images were given")
        return self.encode_text(text, images)

    def encode_text(self, text: str, images: Sequence[PreparedImage] = ()) -> Prompt:
        """Tokens of a prompt that is rendered already.

        Raises `PromptError` when its image tokens do not match `images`.
        """
        token = self.format.image_token
        pieces = text.split(token)
        if len(pieces) - 1 != len(images):
            raise PromptError(
                f"the prompt has {len(pieces) - 1} image tokens {token!r}, but {len(images)} images were given"
            )
        placeholders = [image.placeholder for image in images]
        expanded = "".join(part for pair in zip(pieces, [*placeholders, ""], strict=True) for part in pair)
        ids = np.array(self.tokenizer.encode(expanded, self.format.bos_token), np.int64)
        return Prompt(ids, self._spans(ids, images), expanded)

    def _spans(self, ids: NDArray[np.int64], images: Sequence[PreparedImage]) -> ImageSpans:
        """Runs of the image token, cut where one image ends and the next begins."""
        places = np.flatnonzero(ids == self.format.image_token_id)
        counts = [image.tokens for image in images]
        if places.size != sum(counts):
            raise PromptError(
                f"the prompt has {places.size} image tokens after tokenizing, its images have {sum(counts)}: "
                "is this the model's own tokenizer?"
            )
        owner = np.repeat(np.arange(len(images)), counts)
        row = np.concatenate([np.arange(count) for count in counts]) if counts else owner
        begins = np.flatnonzero((np.diff(places, prepend=-2) != 1) | (np.diff(owner, prepend=-1) != 0))
        lengths = np.diff(begins, append=places.size)
        return tuple(
            ImageSpan(int(places[i]), int(length), int(owner[i]), int(row[i]), images[owner[i]].grid)
            for i, length in zip(begins, lengths, strict=True)
        )


def count_images(messages: Sequence[Message]) -> int:
    """Image parts in a conversation."""
    contents = (message["content"] for message in messages)
    return sum(part["type"] == "image" for content in contents if not isinstance(content, str) for part in content)


def _plain(message: object, index: int) -> dict[str, Any]:
    """A copy of the message out of plain types, which is all that a template may see. Raises `PromptError`."""
    where = f"message {index + 1}"
    if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
        raise PromptError(f"{where} must be a mapping with 'role' and 'content', nothing else")
    role, content = message["role"], message["content"]
    if not isinstance(role, str):
        raise PromptError(f"{where}: the role must be a text, not {type(role).__name__}")
    if isinstance(content, str):
        return {"role": str(role), "content": str(content)}
    if not isinstance(content, list | tuple):
        raise PromptError(f"{where}: the content must be a text or a list of parts, not {type(content).__name__}")
    return {"role": str(role), "content": [_plain_part(part, where) for part in content]}


def _plain_part(part: Any, where: str) -> dict[str, str]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "image":
        return {"type": "image"}
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": str(part["text"])}
    raise PromptError(
        f'{where}: a part must be {{"type": "text", "text": ...}} or {{"type": "image"}}, not {str(part)[:80]!r}'
    )


def _texts(messages: Sequence[Message]) -> list[tuple[int, str]]:
    """Every text of the messages with its message's number."""
    found: list[tuple[int, str]] = []
    for index, message in enumerate(messages):
        content = message["content"]
        parts = [content] if isinstance(content, str) else [part["text"] for part in content if "text" in part]
        found.extend((index, text) for text in parts)
    return found


def _check_question(messages: Sequence[Message], rendered: str) -> None:
    """A template made for the other form of content drops the text, or prints the list, without an error."""
    last = max((index for index, message in enumerate(messages) if message["role"] == "user"), default=-1)
    for index, text in _texts(messages):
        if index == last and text.strip() not in rendered:
            form = "a list of parts" if isinstance(messages[index]["content"], str) else "a text"
            raise PromptError(
                f"the chat template leaves out the text of message {index + 1}: give its content as {form}"
            )
