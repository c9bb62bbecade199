"""The agent imports and measures with the base dependencies alone."""

import subprocess
import sys

CODE = """
import sys

BLOCKED = {"torch", "torchvision", "onnx", "pandas", "scipy", "sklearn", "optuna", "fastapi",
           "uvicorn", "starlette", "safetensors", "pyarrow", "pymoo", "moocore", "onnxscript"}

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
import nas, nas.cli.main, nas.cli.device, devices.fleet.remote, devices.fleet.agent.run
from devices.fleet.agent.config import AgentConfig
from devices.fleet.agent.workshop import Workshop
from devices.measuring.fitness import reference_model
from devices.untrusted.model_check import check_model

about = Workshop(AgentConfig()).describe()
assert [r.name for r in about.runtimes if r.name == "onnxruntime"], about
assert check_model(reference_model()) == "onnx"
assert not BLOCKED & {name.split(".")[0] for name in sys.modules}
print("fine")
"""


def test_the_agent_needs_the_base_dependencies_only():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip().endswith("fine"), done.stderr
