"""One measurement: the protocol, the measuring process, its statistics, and the store."""
