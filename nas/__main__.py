"""``python -m nas``: the command line where the script ``nas`` is not on the path."""

from nas.cli.main import main

main()
