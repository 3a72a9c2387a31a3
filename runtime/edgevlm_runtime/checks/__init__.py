"""What `edgevlm verify` repeats on the device: digests, self-test, questions with known answers."""
