"""The original's loops: losses, counts, printed lines and weights of whole runs."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn

from spars.errors import TrainingError
from spars.original import net_global
from spars.original.crops import crop_classes
from spars.original.loops import Confusion, evaluate_network, train_network
from spars.original.resize import resize_image

RUNS = ("net_global.py", "classifier_experiments/ex1_8in.py", "classifier_experiments/ex3_16in.py")


class _Linear(nn.Module):
    """The golden's network."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(x.flatten(1))


class _Fake:
    """The golden's batches: six noisy samples a call; notes the ranges that were asked for."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.RandomState(seed)
        self.calls: list[list[int]] = []

    def get_data_batch(self, batch_size: int, start: int, end: int):
        self.calls.append([batch_size, start, end])
        x = self.rng.standard_normal((6, 1, 2, 2, 2)).astype(np.float32)
        y = (self.rng.uniform(size=x.shape) < 0.12).astype(np.float32)
        x += 0.8 * y
        y[self.rng.uniform(size=6) < 0.15] *= 0.9
        return torch.from_numpy(x), torch.from_numpy(y)


@pytest.mark.parametrize("script", RUNS)
def test_golden_runs(script, golden_json, fill_golden_weights, caplog):
    golden = golden_json("classifier_loops")
    run, constants = golden["runs"][script], golden["script_constants"][script]
    calls = constants["calls_of_first_epoch"]
    ranges = {"train": calls[0], "val": calls[-1]}
    counts = {kind: calls.count(value) for kind, value in ranges.items()}
    net = fill_golden_weights(_Linear(), run["seed"])
    optimizer = torch.optim.Adam(net.parameters(), lr=0.001)
    data = _Fake(run["seed"])

    def keys(kind):
        batch_size, start, end = ranges[kind]
        return {
            "no_of_batches": counts[kind], "batch_size": batch_size, "start_file_no": start, "end_file_no": end,
            "faithful": True,
        }  # fmt: skip

    losses, found = [], []
    with caplog.at_level(logging.INFO):
        for epoch in range(1, constants["epochs"] + 1):
            losses.append(train_network(net, data, optimizer, epoch=epoch, **keys("train")))
            found.append(evaluate_network(net, data, **keys("val")))
    assert data.calls[: len(calls)] == calls
    np.testing.assert_allclose(losses, run["epoch_losses_printed"], atol=1e-4)
    for name in ("true_positives", "true_negatives", "false_positives", "false_negatives"):
        assert [getattr(each, name) for each in found] == run[name], name
    np.testing.assert_allclose([each.accuracy for each in found], run["accuracy_corrected"], atol=1e-9)
    np.testing.assert_allclose(
        [each.last_accuracy for each in found], run["accuracy_printed_original"], atol=0.0051
    )
    for name in ("precision", "sensitivity", "specificity"):
        np.testing.assert_allclose([getattr(each, name) or 0 for each in found], run[name], atol=5.1e-5)
    np.testing.assert_allclose(net.fc.weight.detach(), run["final_weight"], atol=1e-4)
    np.testing.assert_allclose(net.fc.bias.detach(), run["final_bias"], atol=1e-4)
    assert caplog.messages[-8:] == run["stdout_line_kinds_last_eval"]
    last = constants["epochs"]
    assert f"Epoch {last} - Average Training Loss: {run['epoch_losses_printed'][-1]:.4f}" in caplog.messages
    assert caplog.messages[:2] == ["epoch: 1", "iter: 0"]


class _Fixed:
    """Two-voxel crops whose masks have given maxima."""

    def __init__(self, maxima):
        self.labels = torch.tensor(maxima, dtype=torch.float32)[:, None] * torch.tensor([[0.5, 1.0]])

    def get_data_batch(self, *_args):
        return torch.zeros(len(self.labels), 2), self.labels


class _Always(nn.Module):
    def __init__(self, answer: int) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return nn.functional.one_hot(torch.full((len(x),), self.answer), 2).float()


@pytest.mark.parametrize("index", range(6))
def test_golden_edge_cases(index, golden_json, caplog):
    case = golden_json("classifier_loops")["evaluation_edge_cases"][index]
    with caplog.at_level(logging.INFO):
        evaluate_network(
            _Always(case["always_predicts"]),
            _Fixed(case["label_maxima"]),
            no_of_batches=case["batches"],
            faithful=True,
        )
    assert caplog.messages == ["Evaluating the network", *case["stdout"]]


def test_undefined_shares_are_said_to_be():
    found = Confusion(0, 8, 0, 0, 1.0)
    assert (found.precision, found.sensitivity, found.specificity) == (None, None, 1.0)
    assert found.lines()[-3:] == ["Precision: undefined", "Sensitivity: undefined", "Specificity: 1.0000"]


def test_corrected_accuracy_and_classes():
    found = evaluate_network(_Always(1), _Fixed([0.999, 1.0, 0.0]), no_of_batches=2)
    assert (found.true_positives, found.false_positives) == (4, 2)
    assert found.lines()[4] == "Accuracy: 0.67"
    masks = torch.tensor([[0.0, 0.0], [0.2, 0.999], [1.0, 0.0]])
    assert crop_classes(masks).tolist() == [0, 1, 1]
    assert crop_classes(masks, faithful=True).tolist() == [0, 0, 1]


def test_a_loss_that_is_no_number_stops():
    net = _Linear()
    nn.init.constant_(net.fc.weight, float("nan"))
    with pytest.raises(TrainingError, match=r"epoch 3, batch 0: the loss is nan; lower lr"):
        train_network(net, _Fake(0), torch.optim.Adam(net.parameters()), epoch=3)


@pytest.mark.slow
def test_golden_training_of_the_real_network(golden_npz, golden_volumes, fill_golden_weights):
    golden = golden_npz("classifier_train")
    image, _ = golden_volumes.golden_volume(golden["volume_shape"], int(golden["volume_seed"]))
    boxes = [
        tuple(slice(s, s + c) for s, c in zip(start, golden["crop_size"], strict=True))
        for start in golden["starts"]
    ]
    x = torch.cat([resize_image(image[box] / float(golden["input_divisor"])) for box in boxes])
    y = torch.from_numpy(golden["labels"])
    net = fill_golden_weights(net_global.Net(), int(golden["weight_seed"]))
    with torch.no_grad():
        net.fc5.weight /= int(golden["fc5_divisor"])
    net.train()  # not in channels-last memory, where the norms' sums over 11 million voxels lose digits in float32
    before = net.conv1.weight.detach().numpy().copy()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(len(golden["losses"])):
        logits = net(x)
        loss = nn.functional.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        first = step == 0
        assert loss.item() == pytest.approx(float(golden["losses"][step]), rel=1e-3 if first else 1e-2)
        np.testing.assert_allclose(
            logits.detach(), golden["train_logits"][step], rtol=1e-2, atol=1e-3 if first else 1e-2
        )
        if first:
            gradients = {name: p.grad for name, p in net.named_parameters()}
            assert set(gradients) == set(golden["grad_norm_names"])
            norms = [float(gradients[str(name)].double().norm()) for name in golden["grad_norm_names"]]
            np.testing.assert_allclose(norms, golden["grad_norms_step1"], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(
                gradients["conv1.weight"], golden["conv1_grad_step1"], rtol=1e-2, atol=1e-4
            )
            for layer in range(1, 5):
                norm = net.get_submodule(f"bn{layer}")
                for kind in ("mean", "var"):
                    expected = golden[f"bn{layer}_running_{kind}_after1"]
                    np.testing.assert_allclose(
                        getattr(norm, f"running_{kind}"), expected, rtol=1e-4, atol=1e-4
                    )
        optimizer.step()
    np.testing.assert_allclose(net.fc5.weight.detach(), golden["fc5_weight_after4"], atol=1e-3)
    # Adam turns the sign of a gradient near zero into a whole step of 1e-3, so that single weights may go another way.
    moved = net.conv1.weight.detach().numpy() - before
    expected = golden["conv1_weight_after4"] - before
    assert np.abs(moved - expected).mean() < 0.25 * np.abs(expected).mean()
    assert np.abs(moved - expected).max() < 4e-3
    with torch.no_grad():
        logits = net.eval()(x[:1])
    np.testing.assert_allclose(logits, golden["eval_logits_after4_first_sample"], atol=2e-2)
