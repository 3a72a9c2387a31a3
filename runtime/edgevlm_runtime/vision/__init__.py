"""Pixels to embeddings, remembered by content."""
