"""Messages to tokens and back: chat template, tokenizer, stop strings."""
