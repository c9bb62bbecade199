"""Devices that estimate instead of measure, from models of hardware; labelled as such."""
