"""Signals as data: what reads them, cuts them into windows, and makes them."""
