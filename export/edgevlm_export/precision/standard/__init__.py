"""Formats of the standard dialect: explicit quantization in ONNX's own operators, one file per family of formats.

Values are float32 here, scales included; a graph with float16 activations is converted as a whole afterwards
(`activations`).
"""
