"""How a model file is measured: runtimes, protocol, statistics, store. Loads no torch.

Importing the package files the built-in runtimes in :data:`devices.runtime.RUNTIMES`;
the runtimes themselves are imported when one is built.
"""

import devices.runtimes  # noqa: F401  (registers the built-in runtimes)
