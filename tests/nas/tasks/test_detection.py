import numpy as np
import pytest
import torch

from nas.tasks import ObjectDetection
from nas.tasks.boxes import SIZE_SCALE, boxes_of, cells_of
from nas.tasks.detection import _boxes, _giou, _owners


def raw(box, cell, cells, kinds, kind, score=6.0):
    """The output of a cell that tells ``box`` exactly."""
    middle, side = cells_of(cells)
    size = (box[2:] - box[:2]) / side[cell] / SIZE_SCALE
    centre = (box[2:] + box[:2]) / 2
    scores = np.full(kinds, -9.0)
    scores[kind] = score
    return np.concatenate([scores, (centre - middle[cell]) / side[cell], np.log(np.expm1(size))])


def targets(*rows):
    return torch.tensor([rows], dtype=torch.float32)


def test_boxes_are_those_of_the_documented_function():
    torch.manual_seed(0)
    outputs = torch.randn(3, 180, 9)
    np.testing.assert_allclose(_boxes(outputs).numpy(), boxes_of(outputs.numpy()), atol=1e-6)


def test_generalised_iou_by_hand():
    a = torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    b = torch.tensor([[0.5, 0.0, 1.0, 0.5]])
    assert float(_giou(a, a)[0]) == pytest.approx(1.0)
    assert float(_giou(a, b)[0]) == pytest.approx(0.0)
    far = torch.tensor([[0.75, 0.75, 1.0, 1.0]])
    assert float(_giou(a, far)[0]) == pytest.approx(-(1 - 0.25 - 0.0625))


def test_cells_near_the_middle_answer_for_a_box_and_the_smallest_wins():
    owners, _ = _owners(144, targets([0, 0.2, 0.2, 0.8, 0.8, 0], [1, 0.45, 0.45, 0.55, 0.55, 0]))
    grid = owners[0].reshape(12, 12)
    assert set(grid[5:7, 5:7].flatten().tolist()) == {1}
    assert (grid == 0).sum() + (grid == 1).sum() == 4
    apart, _ = _owners(144, targets([0, 0.2, 0.2, 0.8, 0.8, 0]))
    assert (apart[0] == 0).nonzero().flatten().tolist() == [65, 66, 77, 78]


def test_every_box_has_a_cell_however_small():
    tiny = targets([0, 0.501, 0.501, 0.503, 0.503, 0], [-1, 0, 0, 0, 0, 0])
    for cells in (36, 144, 180):
        owners, _ = _owners(cells, tiny)
        assert (owners == 0).sum() == 1


def test_large_boxes_belong_to_the_coarse_grid_and_small_ones_to_the_fine():
    owners, _ = _owners(180, targets([0, 0.1, 0.1, 0.9, 0.9, 0], [1, 0.4, 0.4, 0.5, 0.5, 0]))
    fine, coarse = owners[0, :144], owners[0, 144:]
    assert (coarse == 0).any() and not (coarse == 1).any()
    assert (fine == 1).any() and not (fine == 0).any()


def test_exact_answers_lose_hardly_anything():
    box = np.array([0.3, 0.4, 0.6, 0.8])
    truth = targets([2, *box, 0])
    owners, _ = _owners(144, truth)
    right = np.full((144, 3 + 4), -9.0)
    for cell in owners[0].ge(0).nonzero().flatten().tolist():
        right[cell] = raw(box, cell, 144, 3, 2)
    task = ObjectDetection()
    good = task.loss(torch.tensor(right[None]).float(), truth)
    moved = torch.tensor(right[None]).float()
    moved[..., 3] += 1.0
    assert good < 0.01 < 0.3 < task.loss(moved, truth)
    score = task.score()
    score.add(torch.tensor(right[None]).float(), truth)
    assert score.values()["ap50"] == pytest.approx(1.0, abs=1e-6)


def test_what_is_ignored_is_neither_learnt_nor_unlearnt():
    crowd = targets([1, 0.2, 0.2, 0.8, 0.8, 1])
    sure = torch.full((1, 144, 7), -9.0)
    middle = _owners(144, targets([1, 0.2, 0.2, 0.8, 0.8, 0]))[0][0].ge(0)
    task = ObjectDetection()
    quiet = task.loss(sure, crowd)
    sure[0, middle, 1] = 5.0
    assert task.loss(sure, crowd) == pytest.approx(float(quiet), abs=1e-6)


def test_images_without_a_box_teach_that_there_is_none():
    nothing = targets([-1, 0, 0, 0, 0, 0])
    outputs = torch.zeros(1, 36, 7, requires_grad=True)
    loss = ObjectDetection().loss(outputs, nothing)
    loss.backward()
    assert (outputs.grad[..., :3] > 0).all() and (outputs.grad[..., 3:] == 0).all()


@pytest.mark.parametrize(
    "student_cells, teacher_cells", [(144, 180), (36, 180), (180, 144), (80, 180)]
)
def test_students_with_other_grids_learn_the_same_boxes(student_cells, teacher_cells):
    box = np.array([0.35, 0.35, 0.65, 0.65])

    def telling(cells, near):
        out = np.full((cells, 3 + 4), -9.0)
        middle, _ = cells_of(cells)
        for cell in np.flatnonzero((np.abs(middle - 0.5) < near).all(1)):
            out[cell] = raw(box, cell, cells, 3, 1)
        return torch.tensor(out[None]).float()

    task = ObjectDetection()
    # The teacher's cells reach as far as the middle of every cell of the student's does.
    student, teacher = telling(student_cells, 0.15), telling(teacher_cells, 0.24)
    silent = student.clone()
    silent[..., :3] = -9.0
    agreeing = task.distillation_loss(student, teacher)
    assert agreeing < task.distillation_loss(silent, teacher)


def test_the_card_says_how_boxes_are_decoded():
    class Splits:
        classes = ("cat", "dog")

    text = ObjectDetection().output_text(Splits())
    assert "(batch, cells, 6)" in text and "non-maximum suppression" in text and "cat, dog" in text


def test_the_report_gets_found_and_wanted_boxes():
    box = np.array([0.3, 0.4, 0.6, 0.8])
    out = np.full((144, 3 + 4), -9.0)
    out[60] = raw(box, 60, 144, 3, 2)
    drawing = ObjectDetection().drawing(
        out, np.array([[2, *box, 0], [-1, 0, 0, 0, 0, 0]]), ("a", "b", "c")
    )
    wanted, found = drawing.boxes
    assert wanted.wanted and not found.wanted and found.label == "c 100 %"
    np.testing.assert_allclose(found.corners, box, atol=1e-3)
