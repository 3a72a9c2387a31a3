"""Holders of the standard dialect: explicit quantization in ONNX's own operators, one a file.

Values are float32 here, scales included; a graph with float16 activations is converted as a whole afterwards
(`activations`).
"""
