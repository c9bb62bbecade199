"""What a strategy, an executor, a task and a tracker must do, as tests that authors run too.

Subclass a suite in a test file and give it the fixtures it names.
"""

from nas.testing.executor import ExecutorContract
from nas.testing.strategy import StrategyContract
from nas.testing.task import TaskContract
from nas.testing.tracker import TrackerContract

__all__ = ["ExecutorContract", "StrategyContract", "TaskContract", "TrackerContract"]
