"""A plan at work: threads for the source, the judge, deadlines and every sink; how it ends, and how it changes."""
