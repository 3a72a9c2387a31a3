"""Runs the decoder once on sample text, with weights streamed in, to see what its layers read."""
