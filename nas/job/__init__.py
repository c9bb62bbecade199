"""The job: what one YAML file may say, how it is checked, and what its sections stand for."""
