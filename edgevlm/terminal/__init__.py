"""What every command shares at the terminal: option types, output, progress, streams."""
