"""Scripts for those who work on edgevlm."""
