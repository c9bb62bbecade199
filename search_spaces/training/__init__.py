"""What training a part of a network on a device takes, from the architecture alone."""
