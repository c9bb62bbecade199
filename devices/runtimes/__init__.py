"""One file a runtime, named in :data:`devices.runtime.RUNTIMES` and imported at its first look-up.

A runtime's own library is imported when one is built, so a missing one is reported then,
with the command that installs it.
"""
