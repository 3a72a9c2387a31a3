"""How pictures are got: streams decoded in a thread of their own, files, requests. The kinds above say what of it."""
