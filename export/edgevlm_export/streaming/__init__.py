"""transformers' own forward with its weights streamed: samples in, activations, ranges and logits out."""
