"""What a run leaves on disk: its folder, evaluations, claims and results."""
