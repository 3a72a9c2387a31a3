"""Messages and images to the tokens of a prompt.

    prompts = PromptEncoder.load(folder, manifest.prompt)       # once for each bundle
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
    encoded = prompts.encode(messages, [prepared_image])        # Prompt
    encoded.token_ids    # int64 [tokens]
    encoded.images       # runs of image tokens: ImageSpan(start, length, image, row, grid), in order
    encoded.text         # what was tokenized, as people read it

Content is as `text.messages` says; the n-th image part in the conversation stands for the n-th image. The chat template
is rendered with one image token for each image, each image token is replaced by that image's placeholder, and the text
is tokenized, as transformers' processors do it. Where the template takes only strings (`PromptFormat.flat_image`), each
message's parts become one string first.

Special tokens written out in a text (`<|im_end|>`) become those tokens, in transformers as here, unless the text's part
is literal (`text.letters`). The image token alone is refused in a text that is not, because it would shift every image
after it. `encode_text` takes a prompt that is rendered already; there the image token is how an image is placed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.bundle.manifest import PromptFormat
from edgevlm_runtime.errors import BundleError, BundleIncomplete, ContextOverflow, PromptError
from edgevlm_runtime.images.base import PreparedImage
from edgevlm_runtime.reading import read_text, why
from edgevlm_runtime.text.layout import ImageSpan, ImageSpans, Prompt, TokenizedText
from edgevlm_runtime.text.letters import Letters, Shield
from edgevlm_runtime.text.messages import Message, Turn, count_images, read_messages
from edgevlm_runtime.text.template import ChatTemplate
from edgevlm_runtime.text.tokenizer import Tokenizer

__all__ = ["Message", "PromptEncoder"]

TEMPLATE_BYTES = 1 << 20
KEPT_TEXTS = 64
"""Texts whose tokens are remembered: a camera asks the same few questions about every frame, and choices are tokenized
behind each."""
LONGEST_KEPT = 32 * 1024
"""Characters of such a text."""


class PromptEncoder:
    """Chat template and tokenizer of one bundle. May be shared between threads."""

    def __init__(self, prompt_format: PromptFormat, template: str, tokenizer: Tokenizer) -> None:
        """`template` is the text of the chat template. Raises `PromptError` when it does not compile."""
        special = {"bos_token": prompt_format.bos_token, "eos_token": prompt_format.eos_token}
        variables = {name: token for name, token in special.items() if token is not None}
        self.format = prompt_format
        self.tokenizer = tokenizer
        self._template = ChatTemplate(template, {**variables, **prompt_format.template_variables})
        self._letters = Letters(tokenizer, template)
        self._known = lru_cache(KEPT_TEXTS)(self._tokens)
        row = tokenizer.added_token(prompt_format.image_token_id)
        self._of_images = tuple(dict.fromkeys([prompt_format.image_token, row or prompt_format.image_token]))
        """What shows an image, and what stands for each of its rows, where that is another token."""

    @classmethod
    def load(cls, folder: str | os.PathLike[str], prompt_format: PromptFormat) -> PromptEncoder:
        """Read template and tokenizer of the bundle in `folder`. Raises `BundleError` when they cannot be read."""
        path = Path(folder) / prompt_format.chat_template
        again = "export the model again"
        try:
            template = read_text(path, TEMPLATE_BYTES)
        except OSError as error:
            raise BundleIncomplete(f"cannot read the chat template: {path}: {why(error)}: {again}") from error
        tokenizer = Tokenizer.load(Path(folder) / prompt_format.tokenizer)
        try:
            return cls(prompt_format, template, tokenizer)
        except PromptError as error:
            raise BundleError(f"damaged chat template: {path}: {error}: {again}") from error

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The conversation as text, with one image token for each image; literal parts are shown as they are.

        Raises `PromptError` for messages of another form, and when the template refuses them, leaves out an image or
        does not show the last user message's text.
        """
        rendered, _, shield = self._render(messages, add_generation_prompt)
        return rendered if shield is None else shield.off(rendered)

    def encode(
        self,
        messages: Sequence[Message],
        images: Sequence[PreparedImage] = (),
        add_generation_prompt: bool = True,
        most: int | None = None,
    ) -> Prompt:
        """Tokens of the conversation.

        Raises `PromptError` as `render` does, and when there are more or fewer `images` than image parts, and
        `ContextOverflow` for a text so long that it must have more than `most` tokens, before it is tokenized.
        """
        text, wanted, shield = self._render(messages, add_generation_prompt)
        if wanted != len(images):
            raise PromptError(f"the messages have {wanted} image parts, but {len(images)} images were given")
        return self._encode(text, images, shield, most)

    def encode_text(self, text: str, images: Sequence[PreparedImage] = ()) -> Prompt:
        """Tokens of a prompt that is rendered already.

        Raises `PromptError` when its image tokens do not match `images`.
        """
        return self._encode(text, images, None)

    def tokenize(self, source: TokenizedText) -> list[int]:
        """Tokens of a prompt's text, the model's beginning-of-sequence token included."""
        if source.letters:
            return self._letters.encode(source, self.format.bos_token)
        known = self._known if len(source.text) <= LONGEST_KEPT else self._tokens
        tokens: list[int] = known(source.text).tolist()
        return tokens

    def _tokens(self, text: str) -> NDArray[np.int32]:
        return np.array(self.tokenizer.encode(text, self.format.bos_token), np.int32)

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> tuple[str, int, Shield | None]:
        """The conversation as text, its images, and what shields its literal texts, where they need it."""
        turns, token = read_messages(messages), self.format.image_token
        if not turns:
            raise PromptError("no messages: give at least one")
        for index, turn in enumerate(turns):
            plain = [part.text or "" for part in turn.texts() if not part.literal]
            for written in self._of_images:
                if any(written in text for text in plain):
                    raise PromptError(
                        f"message {index + 1} contains {written!r}, which stands for an image: "
                        'take it out, or give the image as a part {"type": "image"}'
                    )
        shield = self._letters.shield(turns)
        shown = turns if shield is None else [turn.with_texts(shield.on) for turn in turns]
        rendered = self._filled(shown, add_generation_prompt)
        wanted, found = count_images(turns), rendered.count(token)
        if found != wanted:
            raise PromptError(f"the chat template shows {found} images, the messages have {wanted}")
        _check_question(shown, rendered)
        return rendered, wanted, shield

    def _filled(self, turns: Sequence[Turn], add_generation_prompt: bool) -> str:
        """The template's text. Where it prints a system prompt's list of parts as it is (Gemma 4's does), it takes a
        string there."""
        given = [turn.for_template(self.format.flat_image) for turn in turns]
        rendered = self._template.render(given, add_generation_prompt)
        as_text = [
            turn.for_template("") if turn.role == "system" and str(one["content"]) in rendered else one
            for turn, one in zip(turns, given, strict=True)
        ]
        return rendered if as_text == given else self._template.render(as_text, add_generation_prompt)

    def check_length(self, text: str, most: int) -> None:
        """Raise `ContextOverflow` where `text` must have more than `most` tokens, known without tokenizing it."""
        least = self.tokenizer.least_tokens(text)
        if least > most:
            raise ContextOverflow(
                f"{len(text)} characters need {least} tokens at least, the context holds {most}: shorten the text"
            )

    def _encode(
        self, text: str, images: Sequence[PreparedImage], shield: Shield | None, most: int | None = None
    ) -> Prompt:
        token = self.format.image_token
        pieces = text.split(token)
        if len(pieces) - 1 != len(images):
            raise PromptError(
                f"the prompt has {len(pieces) - 1} image tokens {token!r}, but {len(images)} images were given"
            )
        placeholders = [image.placeholder for image in images]
        expanded = "".join(part for pair in zip(pieces, [*placeholders, ""], strict=True) for part in pair)
        shown = expanded if shield is None else shield.off(expanded)
        if most is not None:
            self.check_length(shown, most)
        source = TokenizedText(expanded) if shield is None else self._letters.source(expanded, shield)
        ids = np.array(self.tokenize(source), np.int64)
        return Prompt(ids, self._spans(ids, images), shown, source=source)

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


def _check_question(turns: Sequence[Turn], rendered: str) -> None:
    """A template made for the other form of content drops the text, or prints the list, without an error."""
    last = max((index for index, turn in enumerate(turns) if turn.role == "user"), default=None)
    if last is None:
        return
    for part in turns[last].texts():
        if (part.text or "").strip() not in rendered:
            form = "a list of parts" if turns[last].whole else "a text"
            raise PromptError(
                f"the chat template leaves out the text of message {last + 1}: give its content as {form}"
            )
