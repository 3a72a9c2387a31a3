"""One training step's forward pass: the Hugging Face modules, fed with packed conversations."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, LlavaForConditionalGeneration

from edgevlm_export.inspector.train import vocabulary
from edgevlm_export.inspector.train.batches import IGNORED, PREFIX
from edgevlm_export.inspector.train.heads import Heads


def matmul_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **unused: object,
) -> tuple[Tensor, None]:
    """Attention as two products and a softmax in the tensors' own type; ``query[B, heads, L, 32]``.

    On a CPU in bfloat16 the backward pass of torch's fused attention took 45 % of a whole step; this takes 15 %. It is
    causal only by the mask that it is given, which ``transformers`` does not make for a name that it does not know.
    """
    scores = torch.matmul(query * scaling, key.transpose(2, 3))
    if attention_mask is not None:
        scores = scores + attention_mask
    mixed = torch.matmul(torch.softmax(scores, dim=-1), value)
    return mixed.transpose(1, 2).contiguous(), None


AttentionInterface.register("matmul", matmul_attention)


class Network(nn.Module):
    """The model and, beside it, the auxiliary heads."""

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        self.model.set_attn_implementation("matmul")
        self.heads = Heads()
        specials = vocabulary.SPECIALS
        self.opening = [specials.index(vocabulary.BOS), specials.index(vocabulary.USER)]

    def patches(self, images: Tensor) -> Tensor:
        """``[B, 96, 96, 3]`` bytes to ``[B, 144, 128]``; (x / 255 - 0.5) / 0.5 as the image processor does."""
        tower = self.model.model.vision_tower
        pixels = images.permute(0, 3, 1, 2).to(tower.dtype) / 127.5 - 1
        patches: Tensor = tower(pixel_values=pixels).last_hidden_state[:, 1:]
        return patches

    def language_loss(self, patches: Tensor, text: Tensor) -> Tensor:
        """Mean loss over the tokens of all answers; ``text[B, 4, T]`` comes from ``batches.pack``."""
        ids, expected, places, conversation = text.unbind(dim=1)
        decoder = self.model.model.language_model
        opening = torch.tensor(self.opening).expand(len(ids), 2)
        embedded = torch.cat(
            [
                decoder.embed_tokens(opening),
                self.model.model.multi_modal_projector(patches),
                decoder.embed_tokens(ids),
            ],
            dim=1,
        )
        prefix = torch.arange(PREFIX).expand(len(ids), PREFIX)
        hidden = decoder(
            inputs_embeds=embedded,
            attention_mask=_mask(conversation, embedded.dtype),
            position_ids=torch.cat([prefix, places], dim=1),
            use_cache=False,
        ).last_hidden_state[:, PREFIX:]
        answered = expected != IGNORED
        return F.cross_entropy(self.model.lm_head(hidden[answered]).float(), expected[answered])

    def forward(self, batch: dict[str, Tensor], *, with_language: bool) -> dict[str, Tensor]:
        patches = self.patches(batch["image"])
        losses: dict[str, Tensor] = self.heads(patches, batch) if "maps" in batch else {}
        if with_language:
            losses["language"] = self.language_loss(patches, batch["text"])
        return losses


def _mask(conversation: Tensor, dtype: torch.dtype) -> Tensor:
    """``[B, 1, L, L]`` to add to scores: causal, the picture for all, otherwise one's own conversation only."""
    count = len(conversation)
    number = torch.cat([torch.zeros(count, PREFIX, dtype=conversation.dtype), conversation], dim=1)
    own = number[:, :, None] == number[:, None, :]
    picture = torch.arange(number.shape[1]) < PREFIX
    seen = (own | picture) & torch.ones(own.shape[1:], dtype=torch.bool).tril()
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]
