"""The PyTorch model that a bundle was made from, behind the same questions that a bundle answers.

    reference = Reference.load("inspector")                      # alias, folder or Hugging Face id, as for `export`
    reference.answer("Is there a scratch?", ["part.png"])        # greedy, transformers' own generate()
    reference.prompt_logits(messages, ["part.png"])              # token ids [S], logits [S, vocab]
    reference.image_embeddings("part.png")                       # [tokens, hidden], in prompt order

    reference = open_reference("llava")                          # the same model, one layer in memory at a time,
    reference.read([Forced("Is there a scratch?", images, answer)])    # where memory does not hold it whole

Everything is transformers' own: model, generate, image processor (PIL backend), tokenizer, chat template. Nothing of
the runtime's preprocessing is used, so that an error of ours cannot hide on both sides of a comparison.
"""

from edgevlm_export.reference.choice import AnyReference, given_template, open_reference
from edgevlm_export.reference.memory import ReferenceTooLarge, weight_bytes
from edgevlm_export.reference.streamed import StreamedReference
from edgevlm_export.reference.whole import Reference, ReferenceAnswer
from edgevlm_export.streaming.inputs import Forced, Read

__all__ = [
    "AnyReference",
    "Forced",
    "Read",
    "Reference",
    "ReferenceAnswer",
    "ReferenceTooLarge",
    "StreamedReference",
    "given_template",
    "open_reference",
    "weight_bytes",
]
