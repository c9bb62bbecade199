"""Annotations in the formats that people have: boxes and masks of images in files."""
