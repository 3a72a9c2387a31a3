"""From a PyTorch module to a graph in an engine's own operators."""
