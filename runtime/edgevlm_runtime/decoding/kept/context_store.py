"""Contexts on disk (`disk.cache`): keys and values of prompts with their images that outlive the process.

After an answer, what its KV cache holds is stored unless most of it is there already; before a prompt is computed, the
stored context that begins as it does, for longer than the cache at hand, takes that one's place. Files are found by
what decides keys and values (bundle, engine), then by tokens and images; those of others are left alone.
"""

from __future__ import annotations

import hashlib
import os

from edgevlm_runtime.bundle.decoder_info import DecoderInfo
from edgevlm_runtime.decoding.baked_prefix import common_prefix
from edgevlm_runtime.decoding.context import Context
from edgevlm_runtime.decoding.kept.held import Contents, Held
from edgevlm_runtime.decoding.kept.identities import Ids
from edgevlm_runtime.disk.cache import DiskCache
from edgevlm_runtime.reading import open_regular
from edgevlm_runtime.text.layout import Prompt

LEAST = 16
"""Positions that reading a file must save, where there is no image among them."""
NEW = 0.25
"""Part of a context that must not be stored yet for it to be stored, where it has no image in it."""
_FORMAT = "1"
_NAME = 32


class ContextStore:
    """Stored contexts of one bundle. Safe from any thread, and beside other processes."""

    def __init__(self, folder: str | os.PathLike[str], capacity: int, identity: str, info: DecoderInfo) -> None:
        """`capacity` in bytes; `identity` names what decides keys and values: bundle and engine.

        Raises `EdgeVLMError` when the folder cannot be made or written.
        """
        self._files = DiskCache(folder, capacity, ".context", "context cache", "context_cache_dir")
        self._prefix = hashlib.sha256(f"{_FORMAT} {identity}".encode()).hexdigest()[:_NAME] + "-"
        self._info = info
        self._known: dict[str, Contents] = {}
        """By name; a name says what is in it."""

    def recall(self, context: Context, prompt: Prompt) -> None:
        """Have `context` hold more of the beginning of `prompt`, where some is stored."""
        have = context.shared_prefix(prompt)
        if have >= len(prompt) - 1:
            return
        contents, blocks = self._contents(), context.blocks(prompt)
        found = {name: one.shared(prompt, blocks, bool(self._info.states)) for name, one in contents.items()}
        for name in sorted(found, key=found.__getitem__, reverse=True):
            gained = contents[name].ids[have : found[name]]
            if gained.size < LEAST and not (gained < 0).any():
                return
            held = self._load(name)
            if held is not None:
                context.hold(prompt, held, found[name])
                return

    def keep(self, context: Context, prompt: Prompt) -> None:
        """Store what `context` holds after an answer to `prompt`."""
        if not context.shareable(prompt):
            return
        held = context.held()
        ids, size = held.contents.ids, held.contents.ids.size
        contents = self._contents()
        stored = {name: _common(one, held.contents) for name, one in contents.items()}
        if (size < LEAST and not held.contents.images) or not _worth(ids, max(stored.values(), default=0)):
            return
        content = hashlib.sha256(repr(held.contents.images).encode() + ids.tobytes()).hexdigest()
        name = f"{self._prefix}{content[:_NAME]}"
        if self._files.save(name, name, held.parts()) and not self._info.states:
            for other, common in stored.items():
                if not _worth(contents[other].ids, common):  # the new one has it, but for little
                    self._files.remove(other)

    def _contents(self) -> dict[str, Contents]:
        """What is stored now, by name."""
        suffix = self._files.suffix
        try:
            names = [file.name[: -len(suffix)] for file in self._files.folder.glob(f"{self._prefix}*{suffix}")]
        except OSError:
            names = []
        known = {}
        for name in names:
            contents = self._known.get(name) or self._read_contents(name)
            if contents is not None:
                known[name] = contents
        self._known = known
        return known

    def _read_contents(self, name: str) -> Contents | None:
        try:
            with open_regular(self._files.file(name)) as file:
                contents = Contents.read(lambda count: file.read(count) or b"")
        except OSError:
            return None
        if contents is None:
            self._files.discard(name)
        return contents

    def _load(self, name: str) -> Held | None:
        data = self._files.load(name, name)
        held = None if data is None else Held.read(data, self._info)
        if held is None:
            self._known.pop(name, None)
            if data is not None:
                self._files.discard(name)
        return held


def _worth(ids: Ids, stored: int) -> bool:
    """Whether positions beyond the first `stored` are worth a file: an image, or much of all."""
    rest = ids[stored:]
    return bool(rest.size >= NEW * ids.size or (rest < 0).any())


def _common(one: Contents, other: Contents) -> int:
    """How many positions both begin with."""
    if one.images[: len(other.images)] != other.images[: len(one.images)]:
        first = next(n for n, (a, b) in enumerate(zip(one.images, other.images, strict=False)) if a != b)
        return common_prefix(one.ids[: _before(one, first)], other.ids[: _before(other, first)])
    return common_prefix(one.ids, other.ids)


def _before(contents: Contents, image: int) -> int:
    """Positions before the first of an image."""
    places = ((-1 - contents.ids) >> 32 == image).nonzero()[0]
    return int(places[0]) if places.size else int(contents.ids.size)
