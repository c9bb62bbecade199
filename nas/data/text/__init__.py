"""Text as data: files, tokens, and the pieces that are divided among the sets."""
