"""Each loss of training by value, computed by hand in numpy: Eq. 5 to 8 of the SC2 paper."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from splitzoo.zoo.bottlenecks.variable_rate import VariableRate
from splitzoo.zoo.tasks.detection import DetectionTail
from splitzoo.zoo.tasks.segmentation import SegmentationTail
from splitzoo.zoo.train.objective import Objective
from splitzoo.zoo.train.recipe import Stage

STUDENT = np.array([[2.0, -1.0, 0.5], [0.25, 1.5, -0.75]], np.float32)
TEACHER = np.array([[1.0, 0.0, -2.0], [-0.5, 3.0, 0.125]], np.float32)
LABELS = np.array([2, 1])
FEATURES = np.arange(12, dtype=np.float32).reshape(2, 1, 2, 3)
LIKELIHOODS = np.array([[0.5, 0.125, 0.3], [0.25, 0.75, 0.9]], np.float32)
BETA = 0.25
LABELS_ = torch.tensor(LABELS)
close = partial(pytest.approx, rel=1e-5)


class Given(nn.Module):
    """Gives the same tensor for any input."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, _):
        return self.value


class Tail(nn.Module):
    """Two layers that give features, and logits."""

    def __init__(self, features, logits):
        super().__init__()
        self.layer1, self.layer2 = (Given(torch.tensor(one)) for one in features)
        self.logits = torch.tensor(logits)

    def forward(self, given):
        self.layer2(self.layer1(given))
        return self.logits


class Segmentation(SegmentationTail):
    """Gives the logits of both heads for any features."""

    def __init__(self, main, auxiliary):
        nn.Module.__init__(self)
        self.given = torch.tensor(main), torch.tensor(auxiliary)

    def forward_with_aux(self, features):
        return self.given


class Detection(DetectionTail):
    """Gives the four losses of a detector for any features."""

    def __init__(self):
        nn.Module.__init__(self)

    def losses(self, features, targets, areas):
        assert areas == [(4, 4), (4, 3)]
        values = {"classifier": 0.5, "box": 1.25, "objectness": 0.0625, "rpn": 2.0}
        return {name: torch.tensor(value) for name, value in values.items()}


class Bottleneck(nn.Module):
    def forward_with_likelihoods(self, latent):
        return latent, (torch.tensor(LIKELIHOODS),)

    def aux_loss(self):
        return torch.tensor(7.0)


def network(features, logits):
    decoder = nn.ModuleDict(
        {"g_s": Given(torch.tensor(features[0])), "tail": Tail(features, logits)}
    )
    model = nn.Module()
    model.encoder, model.bottleneck, model.decoder = nn.Identity(), Bottleneck(), decoder
    model.spec = SimpleNamespace(
        name="made", task="image-classification", cut="layer1", beta=BETA, bottleneck=None
    )
    return model


def stage(*terms):
    optimizer = {"kind": "sgd", "learning_rate": 1}
    return Stage(losses=terms, epochs=1, batch_size=2, optimizer=optimizer)


def losses(*terms, processes=1):
    """The losses of a batch of two images."""
    student = network((FEATURES, 2 * FEATURES), STUDENT)
    teacher = network((FEATURES + 0.5, 2 * FEATURES - 1), TEACHER)
    objective = Objective(student, teacher, stage(*terms), processes=processes)
    found = objective(torch.zeros(2, 3, 4, 4), torch.tensor(LABELS))
    return {name: value.item() for name, value in found.items()}


def log_softmax(logits):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def cross_entropy(logits, smoothing=0.0):
    log_p = log_softmax(logits)
    return (-(1 - smoothing) * log_p[[0, 1], LABELS] - smoothing * log_p.mean(1)).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(smoothing):
    found = losses({"kind": "task", "label_smoothing": smoothing, "weight": 3})
    assert found["task"] == close(cross_entropy(STUDENT, smoothing))
    assert found["loss"] == close(3 * found["task"])
    assert found["correct"] == 0.5
    assert found["auxiliary"] == 7


@pytest.mark.parametrize(("alpha", "temperature"), [(0.5, 1.0), (0.3, 4.0), (0.0, 2.0), (1.0, 2.0)])
def test_distillation(alpha, temperature):
    found = losses({"kind": "distillation", "alpha": alpha, "temperature": temperature})
    ours, theirs = (log_softmax(logits / temperature) for logits in (STUDENT, TEACHER))
    divergence = (np.exp(theirs) * (theirs - ours)).sum() / 2  # of the teacher, over two images
    expected = alpha * cross_entropy(STUDENT) + (1 - alpha) * temperature**2 * divergence
    assert found["loss"] == close(expected)


@pytest.mark.parametrize(("reduction", "scale"), [("sum", 1), ("mean", 1 / 2)])
def test_features_and_rate(reduction, scale):
    features = {"kind": "features", "layers": "layer1 layer2", "reduction": reduction}
    rate = {"kind": "rate", "reduction": reduction}
    found = losses(features, rate)
    bits = -np.log2(LIKELIHOODS).sum()
    assert found["features"] == close(12 * (0.5**2 + 1**2) * scale)
    assert found["rate"] == close(bits * scale)
    assert found["bits"] == close(bits / 2)  # per image, whatever the reduction
    assert found["loss"] == close(found["features"] + BETA * found["rate"])
    weighed = losses(features | {"weight": 2}, rate | {"weight": 0.125})
    assert weighed["loss"] == close(2 * found["features"] + 0.125 * found["rate"])
    # Gradients of processes are averaged: a sum counts in each as often as there are processes.
    shared = losses(features, rate, processes=4)["loss"]
    assert shared == close((4 if reduction == "sum" else 1) * found["loss"])


class Levelled(VariableRate):
    """Draws given levels, and gives given probabilities."""

    def draw_levels(self, number):
        return torch.tensor([0, 2])

    def forward_with_likelihoods(self, latent, levels=None):
        assert levels.tolist() == [0, 2]
        return latent, (torch.tensor([[0.5, 0.125], [0.25, 0.25]]),)


@pytest.mark.parametrize(("reduction", "scale"), [("sum", 1), ("mean", 0.5)])
def test_each_images_bits_are_weighed_by_the_beta_of_its_level(reduction, scale):
    """By hand: 0.1 · (1 + 3) + 0.4 · (2 + 2)."""
    student = network((FEATURES, FEATURES), STUDENT)
    student.bottleneck, student.spec.beta = Levelled(1, (0.1, 0.2, 0.4), 1).eval(), None
    found = Objective(student, None, stage({"kind": "rate", "reduction": reduction}))(
        torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64)
    )
    assert found["rate"].item() == pytest.approx(8 * scale)
    assert found["bits"].item() == pytest.approx(4)
    assert found["loss"].item() == pytest.approx(2.0 * scale)


@pytest.mark.parametrize("beta", [0.25, 3.0])
def test_end_to_end_is_cross_entropy_and_beta_bits_per_image(beta):
    """Eq. 8, its logarithm to the base 2 as sc2-benchmark takes it. By hand."""
    bits = (1 + 3 + 1.7369655941662063 + 2 + 0.4150374992788438 + 0.15200309344504995) / 2
    found = losses({"kind": "task"}, {"kind": "rate", "reduction": "mean", "weight": beta})
    first = np.log(np.exp([2, -1, 0.5]).sum()) - 0.5
    second = np.log(np.exp([0.25, 1.5, -0.75]).sum()) - 1.5
    assert found["loss"] == close((first + second) / 2 + beta * bits)


def test_layers_that_end_a_stage_are_compared_from_the_cut_on():
    """GHND: the sum over all of them of squared errors, by hand."""
    student, teacher = (network((FEATURES, 2 * FEATURES), STUDENT) for _ in range(2))
    for model, shift in ((student, 0.0), (teacher, 1.0)):
        tail = model.decoder["tail"]
        for number in (1, 2, 3, 4):
            layer = Given(torch.tensor(FEATURES + number * shift))
            setattr(tail, f"layer{number}", layer)
        tail.forward = partial(all_layers, tail)
        model.spec.backbone, model.spec.cut = "resnet50", "layer2"
    student.decoder["g_s"] = Given(torch.tensor(FEATURES))
    found = Objective(student, teacher, stage({"kind": "features"}))(
        torch.zeros(2, 3, 4, 4), LABELS_
    )
    assert found["features"].item() == close(12 * (2**2 + 3**2 + 4**2))


def all_layers(tail, given):
    for number in (1, 2, 3, 4):
        getattr(tail, f"layer{number}")(given)
    return tail.logits


def test_channels_last_features_of_a_teacher_are_turned():
    features = FEATURES.reshape(2, 3, 1, 2)
    student = network((features, features), STUDENT)
    teacher = network((features.transpose(0, 2, 3, 1) + 2, features), TEACHER)
    teacher.decoder["tail"].output_fmt = "NHWC"
    objective = Objective(student, teacher, stage({"kind": "features", "layers": "layer1"}))
    found = objective(torch.zeros(2, 3, 4, 4), LABELS_)
    assert found["features"].item() == close(12 * 2**2)


def dense(task, tail, targets):
    model = network((FEATURES, FEATURES), STUDENT)
    model.decoder["tail"], model.spec.task = tail, task
    objective = Objective(model, None, stage({"kind": "task", "auxiliary": 0.25}))
    return objective(torch.zeros(2, 3, 4, 4), targets)["loss"].item()


def test_segmentation_adds_the_auxiliary_head_and_leaves_unlabelled_pixels_out():
    main, auxiliary = (logits.T.reshape(1, 3, 2, 1) for logits in (STUDENT, TEACHER))
    tail = Segmentation(main, auxiliary)
    targets = torch.tensor(LABELS.reshape(1, 2, 1))
    both = cross_entropy(STUDENT) + 0.25 * cross_entropy(TEACHER)
    assert dense("semantic-segmentation", tail, targets) == close(both)
    targets[0, 1] = 255
    first = [-log_softmax(logits)[0, LABELS[0]] for logits in (STUDENT, TEACHER)]
    assert dense("semantic-segmentation", tail, targets) == close(first[0] + 0.25 * first[1])


def test_detection_adds_its_four_losses():
    targets = [{"area": torch.tensor(area)} for area in ((4, 4), (4, 3))]
    assert dense("object-detection", Detection(), targets) == close(3.8125)
