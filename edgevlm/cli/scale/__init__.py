"""Commands for more than one machine, or one picture: docs/scale.md."""
