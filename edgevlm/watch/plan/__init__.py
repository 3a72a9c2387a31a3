"""A watch as data: read from a TOML file, made of a command's flags, written as a commented example."""
