"""Files that a model of a front is handed over in: one format, one part, one check."""
