"""What a new bundle answered, and how far it is from the PyTorch model."""
