"""Files that several processes share: one at a time, and bounded folders of results."""
