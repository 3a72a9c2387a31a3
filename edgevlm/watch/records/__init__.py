"""What was judged, to be told months later: records in a chain, marks of people, the same frames asked again."""
