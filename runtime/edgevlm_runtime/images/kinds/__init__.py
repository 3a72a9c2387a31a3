"""One file per kind of preprocessing: frozen `Options`, as the manifest has them, and a `Processor`."""
