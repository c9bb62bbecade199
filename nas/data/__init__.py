"""Where images come from, and how they are divided into sets that never mix."""
