"""A run looked at in a browser of this machine: its progress, and its study in optuna-dashboard."""
