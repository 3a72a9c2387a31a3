"""LLaVA and what was made of it: a tower, a projector of two layers, any text decoder."""
