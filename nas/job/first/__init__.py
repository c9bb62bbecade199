"""The first job of a user: what their data is, and the job that suits it."""
