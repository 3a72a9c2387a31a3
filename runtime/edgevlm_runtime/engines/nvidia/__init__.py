"""What the engines `tensorrt` and `tensorrt_rtx` are made of: one concern per file, for either library.

`library` (import it, or say what to install), `messages` (what it says), `cuda` (device, memory, streams), `engine`
(from a bundle's digest-checked file to a graph), `graph`, `binding`, `ports`, `replay` (CUDA graphs).
"""
