"""Gemma with pictures: tokens that see later ones, soft caps, windows."""
