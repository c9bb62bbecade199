"""One room for each section of a job: what it may say, and what is checked beyond its schema."""
