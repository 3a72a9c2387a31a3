"""A checkpoint's weights as they lie on disk: which files they are, one tensor at a time, tied and quantized or not."""
