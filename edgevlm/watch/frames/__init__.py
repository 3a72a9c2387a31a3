"""A picture with its time and number; the newest of them, those before a trigger, parts of them, how far two differ."""
