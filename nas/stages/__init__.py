"""A job at work: the stages of a run, from the supernet to the tested front."""
