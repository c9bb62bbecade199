"""What a search is worth: its front against networks made by hand in the same time."""
