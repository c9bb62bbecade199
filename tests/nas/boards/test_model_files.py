import pytest

from nas.boards.model_files import UntrainedFiles
from search_spaces.spaces.mobilenet import MobileNetSpace


def test_untrained_files_are_models_of_the_architecture(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from devices.runtime import make_runtime

    space = MobileNetSpace.from_config(preset="8x8")
    for integer in (False, True):
        path = UntrainedFiles(space, tmp_path, integer=integer)(space.smallest())
        session = make_runtime("onnxruntime").load(path)
        assert session.inputs[0].shape[2:] == space.plan(space.smallest()).input_shape[1:]
        assert (b"QuantizeLinear" in path.read_bytes()) is integer


def test_the_file_does_not_depend_on_threads(tmp_path):
    """Otherwise what was measured would not be found again."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    space = MobileNetSpace.from_config(preset="8x8")
    made = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            files = UntrainedFiles(space, tmp_path / str(threads), integer=True)
            made.append(files(space.largest()).read_bytes())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert made[0] == made[1]
