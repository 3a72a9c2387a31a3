"""A Triton model repository with a bundle in it: one Python-backend model that keeps the decoding loop inside.

`repository.py` writes it; `model.py` is the file that Triton runs, copied as it is.
"""
