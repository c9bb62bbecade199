"""Boards elsewhere: the hub they dial into, the agent on a board, what they say to each other."""
