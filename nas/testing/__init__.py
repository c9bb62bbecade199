"""What a strategy, an executor and a task must do, as tests that their authors run too.

Subclass a suite in a test file and give it the fixtures it names.
"""

from nas.testing.executor import ExecutorContract
from nas.testing.strategy import StrategyContract
from nas.testing.task import TaskContract

__all__ = ["ExecutorContract", "StrategyContract", "TaskContract"]
