"""The agent on a board: dials a hub, measures what it is given, delivers each result once.

Needs the base dependencies only: no torch, no ONNX library, no web server.
"""
