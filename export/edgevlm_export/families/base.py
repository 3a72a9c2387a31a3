"""What a family tells the exporter about its models: how to split them into graphs.

There are three, and a fourth for prompts where one is asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.families.blocks import BLOCKS
from edgevlm_export.families.choosing.graph import fewer_rows
from edgevlm_export.families.decoder import EMBEDDINGS, Columns, Wiring, decoder_source
from edgevlm_export.families.normalization import Normalization
from edgevlm_export.families.text_config import check_decoder, rotates_outside, windows
from edgevlm_export.graphs.source import Forwards, GraphSource
from edgevlm_runtime.bundle.decoder_info import ImageColumns, StateInfo
from edgevlm_runtime.bundle.manifest import FewerTokens
from edgevlm_runtime.decoding.attention import get_pattern

_NONE: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TokenTable:
    """A table that every token is looked up in beside the embeddings; its rows are columns of the decoder's input."""

    name: str
    """Of the decoder graph's input."""
    module: str
    """Path of the `nn.Embedding` in the model."""
    shape: tuple[int, int]
    """Tokens, and columns."""
    scale: float
    """Factor on the rows."""

    @property
    def width(self) -> int:
        """Columns."""
        return self.shape[1]

    @property
    def parameter(self) -> str:
        """Name of the table among the model's parameters."""
        return f"{self.module}.weight"


class Family(ABC):
    """One model, split. One subclass per file; `model_type` is its key.

    `model` is the skeleton (`skeleton.build`); `image_options` are the runtime's options of the family's image kind;
    `context` is the longest sequence the decoder shall hold.
    """

    model_type: ClassVar[str]
    projector_module: ClassVar[str]
    """Path of the model's submodule between vision features and embeddings; the reference looks inside there: what it
    is called with is what the vision encoder's graph gives, row by row, in this order."""
    last_norm: ClassVar[str] = "norm"
    """Path of the text model's submodule behind its last layer."""
    after_image: ClassVar[str | None] = None
    """What published prompts write between an image's token and the text, for chat templates that take a message's
    content as one string only; None where they are of no use to the family."""
    plain_prompts: ClassVar[bool] = False
    """Whether published usage has no chat template, and transformers' processor writes the prompt around a text."""
    image_kind: ClassVar[str | None] = None
    """The runtime's kind of image processing that the graphs are made for; None where the config decides."""
    mrope: ClassVar[bool] = False
    """Whether positions are inputs of the decoder (multimodal rotary embedding)."""
    attention: str = "causal"
    """Which tokens see later ones: a key of `edgevlm_runtime.decoding.attention.PATTERNS`."""
    fewer: FewerTokens | None = None
    """Where the projector's graph shall leave out some of an image's tokens."""

    def __init__(
        self, model: PreTrainedModel, normalization: Normalization, image_options: dict[str, Any], context: int
    ):
        self.model = model
        self.config: PreTrainedConfig = model.config
        self.text_config: PreTrainedConfig = model.config.get_text_config()
        self.normalization = normalization
        self.image_options = image_options
        self.context = context
        check_decoder(self.text_config)

    @classmethod
    def published_template(cls, config: PreTrainedConfig) -> str | None:
        """Name of the chat template (`edgevlm_export.chat_templates`) that goes with the published checkpoints that
        this config is of; None where the config does not tell."""
        return None

    @classmethod
    def images_of(cls, config: PreTrainedConfig) -> str | None:
        """`image_kind` of the model with this config; None where any does."""
        return cls.image_kind

    @classmethod
    def template_image(cls, config: PreTrainedConfig) -> int:
        """The token by which chat templates show an image; the one that stands for its rows in most families."""
        return config.image_token_id  # type: ignore[no-any-return]

    @classmethod
    def prepare_tokenizer(cls, tokenizer: Any) -> Any:
        """A loaded tokenizer, after what the family's processor in transformers does to it."""
        return tokenizer

    @classmethod
    def resizes(cls, config: PreTrainedConfig) -> bool:
        """Whether the tower of the model with this config can be given square pictures of another size, its table of
        positions interpolated (`edgevlm_export.checkpoints.weights.interpolated`)."""
        return False

    @classmethod
    def choices(cls, config: PreTrainedConfig) -> tuple[str, ...]:
        """Methods by which some of an image's tokens can be chosen (`families.choosing.METHODS`), the best first; none
        where a token that is left out would change the positions of others, or what stands between them."""
        return ()

    @classmethod
    def scoring_layer(cls, config: PreTrainedConfig) -> str:
        """Path of the tower's layer whose attention gives scores; for families with a choice that goes by them."""
        raise NotImplementedError

    @classmethod
    def scores(cls, config: PreTrainedConfig, weights: Tensor) -> Tensor:
        """Scores [B, tokens] from that layer's attention [B, heads, queries, places]; likewise."""
        raise NotImplementedError

    @property
    def positions(self) -> str:
        """The runtime's name for how positions are made."""
        return "mrope" if self.mrope else "linear"

    @property
    def text_model(self) -> nn.Module:
        """The decoder stack without its head, where most models of transformers have it."""
        text_model: nn.Module = self.model.model.language_model
        return text_model

    def text_arguments(
        self, rows: Tensor, named: Mapping[str, Tensor], entries: Mapping[str, Callable[[Tensor], Tensor]] = _NONE
    ) -> dict[str, Any]:
        """What `text_model` is called with for sequences from position 0 on, but for its cache.

        `rows`: [batch, S, width], embeddings and then `columns`, as the runtime has them; `named`: further
        arguments for these positions (position ids, masks), by transformers' names; `entries`: what is done first to
        embeddings and columns, by the names of the decoder graph's inputs.
        """
        widths = [columns.width for columns in self.columns]
        embeddings, *parts = rows.split([rows.shape[-1] - sum(widths), *widths], dim=-1)
        given = {EMBEDDINGS: embeddings}
        given |= {one.name: part for one, part in zip(self.columns, parts, strict=True)}
        columns = {name: entries[name](part) if name in entries else part for name, part in given.items()}
        embeddings = columns.pop(EMBEDDINGS)
        causal = self.block_arguments(embeddings)
        return {"inputs_embeds": embeddings, **causal, **self.column_arguments(columns), **named}

    @property
    def embedding_scale(self) -> float:
        """Factor on token embeddings, and only on them, before they enter the stack (Gemma: sqrt(hidden))."""
        return float(getattr(self.text_model.get_input_embeddings(), "scalar_embed_scale", 1.0))  # type: ignore[operator]

    @property
    def embedding_name(self) -> str:
        """Name of the token embeddings among the model's parameters."""
        table = self.text_model.get_input_embeddings().weight  # type: ignore[operator]
        names: list[str] = [name for name, parameter in self.model.named_parameters() if parameter is table]
        return names[0]

    @abstractmethod
    def vision_encoder(self) -> GraphSource:
        """Pixels to `image_features`."""

    @abstractmethod
    def projector(self) -> GraphSource:
        """`image_features` to `image_embeddings`, in the decoder's space."""

    def graph(self, name: str) -> GraphSource:
        """`vision_encoder`, `projector`, `decoder` or `prefill`, with as many image tokens as are asked for."""
        source: GraphSource = getattr(self, name)()
        return fewer_rows(source, self.fewer) if name == "projector" and self.fewer is not None else source

    @property
    def image_columns(self) -> tuple[ImageColumns, ...]:
        """What image tokens bring into the decoder beside their embeddings: the projector's rows end with them."""
        return ()

    @property
    def token_tables(self) -> tuple[TokenTable, ...]:
        """What all tokens bring into the decoder beside their embeddings."""
        return ()

    @property
    def stand_ins(self) -> dict[int, int]:
        """Tokens that the model looks up as others: those that stand for images, where it does that."""
        return {}

    @property
    def columns(self) -> tuple[Columns, ...]:
        """`image_columns`, then `token_tables`: behind the embeddings in the decoder's inputs."""
        return (*self.image_columns, *self.token_tables)

    @property
    def states(self) -> tuple[StateInfo, ...]:
        """What layers without keys and values carry from run to run, float32."""
        return ()

    @property
    def forwards(self) -> Forwards:
        """Classes of modules whose own forward the decoder's graph cannot hold, as where it carries a state: what is
        called in its place, with the module first, gives neutral operators (`graphs.ops`) of the same function."""
        return ()

    @property
    def logit_cap(self) -> float | None:
        """Soft cap of the logits, where the model's own class applies one."""
        return None

    def column_arguments(self, columns: Mapping[str, Tensor]) -> dict[str, Any]:
        """What the text model is called with for `columns`, by name, [B, S, width] each; those of images are zeros for
        text."""
        return {}

    def block_arguments(
        self, embeddings: Tensor, images: Tensor | None = None, asked: Tensor | None = None
    ) -> dict[str, Any]:
        """What the text model is called with beside `embeddings` [B, S, hidden], padded on the right, so that tokens
        see later ones as in the model; nothing where its attention is causal.

        `images`: bool [B, S], where image tokens are; `asked`: int64 [B], tokens of each sequence that are a prompt,
        its answer apart (0 for a text that is none). Without them no token sees a later one.
        """
        find = BLOCKS.get(self.attention)
        if find is None:
            return {}
        causal = torch.full(embeddings.shape[:2], -1)
        blocks = causal if images is None or asked is None else find(images, asked)
        return {"attention_mask": self.block_masks(embeddings, blocks)}

    def block_masks(self, embeddings: Tensor, blocks: Tensor) -> Any:
        """transformers' own masks, where tokens with one number in `blocks` [B, S] see each other (-1 is none); to be
        overridden where attention is not causal."""
        raise NotImplementedError

    @property
    def wiring(self) -> Wiring:
        """What the decoder graph has beside tokens' embeddings and causal attention."""
        blocks = self.attention != "causal"
        sizes = windows(self.text_config) if blocks else ()
        sizes = tuple(size for size in sizes if size or get_pattern(self.attention).everywhere)
        return Wiring(
            mrope=self.mrope,
            outside=blocks or rotates_outside(self.text_config),
            columns=self.columns,
            arguments=self.column_arguments,
            masks={f"block_mask_window_{size}" if size else "block_mask": size for size in sizes},
            states=self.states,
            forwards=self.forwards,
            whole=self.attention == "prefix",
            logit_cap=self.logit_cap,
        )

    def decoder(self) -> GraphSource:
        """Embeddings to logits, with the KV cache."""
        head = self.model.get_output_embeddings()
        return decoder_source(self.model, self.text_model, head, self.text_config, self.context, self.wiring)

    def prefill(self) -> GraphSource:
        """Embeddings into the KV cache, and nothing else: the decoder without its head."""
        return decoder_source(self.model, self.text_model, None, self.text_config, self.context, self.wiring)
