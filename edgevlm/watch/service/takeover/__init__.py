"""A new bundle or plan in place of the old, between two frames: seen on disk, proved, taken over, and left again."""
