"""Pictures that clients name, brought as bytes; nothing of what they say is trusted."""
