"""A Hugging Face checkpoint on disk: where it is, what it says, its weights one tensor at a time."""
