"""What everything that answers over HTTP has in common: who may ask, and a server in a thread of its own."""
