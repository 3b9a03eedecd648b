"""Updates: the same gradients however little memory they take, and what the corrected behaviour changes."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch

from advmil.backpropagation import Arithmetic
from advmil.baseline_update import BaselineSettings, BaselineUpdate
from advmil.groups import GroupLabels
from advmil.models.build import build_backbone
from advmil.models.discriminator import Discriminator
from advmil.models.generator import Generator
from advmil.models.survival_net import SurvivalNet
from advmil.noise import torch_noise
from advmil.optimisers import build_optimizer
from advmil.updates import AdversarialSettings, AdversarialUpdate, fake_time_vector, real_time_vector

DIMS = (16, 8, 8)
T = torch.tensor([0.4, 0.2, 0.9, 0.6])
E = torch.tensor([1, 0, 1, 1])


class Bag(NamedTuple):
    x: torch.Tensor
    extra: torch.Tensor | None = None


def make_bags(mode="patch", dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    bags = []
    for regions in (1, 3, 2, 1):
        n = 16 * regions
        extra = {
            "cluster": torch.randint(0, 8, (n,), generator=generator),
            "graph": torch.randint(0, n, (2, 4 * n), generator=generator),
        }.get(mode)
        bags.append(Bag(torch.randn(1, n, 16, generator=generator).to(dtype), extra))
    return bags


def make_update(
    settings, *, mode="patch", k=1, dtype=torch.float64, arithmetic=None, optimiser="adam", dropout=0.5
):
    torch.manual_seed(0)
    g = Generator(build_backbone(mode, DIMS, dropout), (8, k), dropout=dropout).to(dtype)
    d = Discriminator(16, 8, time_dim=k, time_widths=(4, 8), dropout=0.0).to(dtype)
    opt_g = build_optimizer(optimiser, g, 1e-2, 1e-3, freeze=g.unused if settings.freeze_unused else ())
    return AdversarialUpdate(g, d, opt_g, build_optimizer("adam", d, 1e-2), settings, arithmetic)


def run(update, bags, labels=None, visible=None, steps=2, seed=3):
    torch.manual_seed(seed)
    noise = torch_noise("uniform", torch.Generator().manual_seed(seed))
    labels = labels or GroupLabels(T, E)
    return [update.step(bags, labels, visible, noise) for _ in range(steps)]


def weights(update):
    nets = (
        [update.generator, update.discriminator]
        if isinstance(update, AdversarialUpdate)
        else [update.network]
    )
    return torch.cat([p.detach().reshape(-1) for net in nets for p in net.parameters()])


@pytest.mark.parametrize("mode", ["patch", "abmil", "cluster", "graph"])
@pytest.mark.parametrize("rank_coef", [0.0, 0.5])
def test_bag_by_bag_equals_the_whole_group_with_dropout(mode, rank_coef):
    settings = AdversarialSettings(gan_coef=0.1, rank_coef=rank_coef)
    bags = make_bags(mode)
    results = {}
    for name, changed in {
        "group": {"memory": "group", "reuse_first_layer": 0.0},
        "bag": {"memory": "bag", "reuse_first_layer": 0.0},
        "reused": {"memory": "bag", "reuse_first_layer": 1.0},
        "partly": {"memory": "bag", "reuse_first_layer": 0.5},
    }.items():
        update = make_update(replace(settings, **changed), mode=mode)
        steps = run(update, bags)
        results[name] = weights(update), [step.log for step in steps]
    for name in ("bag", "reused", "partly"):
        torch.testing.assert_close(results[name][0], results["group"][0], rtol=0, atol=1e-10)
        for ours, theirs in zip(results[name][1], results["group"][1], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-10)


@pytest.mark.parametrize("mode", ["patch", "graph"])
def test_cox_replay_repeats_dropout(mode):
    bags, seen = make_bags(mode), {}
    for memory in ("bag", "group"):
        torch.manual_seed(0)
        net = SurvivalNet(build_backbone(mode, DIMS, 0.5), (8, 1), dropout=0.5, out_scale="none").double()
        update = BaselineUpdate(
            net, build_optimizer("sgd", net, 0.5), BaselineSettings("surv_cox", memory=memory)
        )
        torch.manual_seed(4)
        logs = [update.step(bags, GroupLabels(T, E)).log for _ in range(3)]
        seen[memory] = weights(update), [list(log.values()) for log in logs], torch.rand(1)
    torch.testing.assert_close(seen["bag"][0], seen["group"][0], rtol=0, atol=1e-12)
    torch.testing.assert_close(seen["bag"][1], seen["group"][1], rtol=0, atol=1e-12)
    assert seen["bag"][2] == seen["group"][2]  # later draws are the same too


def test_without_adversarial_part_the_discriminator_rests():
    update = make_update(AdversarialSettings(gan_coef=0.0, l1_coef=1e-2))
    before = [p.clone() for p in update.discriminator.parameters()]
    result = run(update, make_bags(), steps=1)[0]
    assert result.fake_scores is None
    assert set(result.log) == {"train_batch/netG/Loss_G_time", "train_batch/netG/Loss_G_total"}
    assert result.log["train_batch/netG/Loss_G_total"] > result.log["train_batch/netG/Loss_G_time"] + 1e-2
    for old, new in zip(before, update.discriminator.parameters(), strict=True):
        assert torch.equal(old, new)


def test_a_group_without_visible_labels_trains_on_fake_pairs_alone():
    update = make_update(AdversarialSettings(gan_coef=1.0))
    before = weights(update)
    log = run(update, make_bags(), visible=[False] * 4, steps=1)[0].log
    assert log["train_batch/netG/Loss_G_time"] == 0
    assert "train_batch/netD/D_real" not in log
    assert not torch.equal(weights(update), before)


@pytest.mark.parametrize("discrete", [False, True])
def test_hidden_labels_change_nothing(discrete):
    visible = [True, False, True, False]
    seen = []
    for hidden in (0, 3):
        t = torch.tensor([1.0, hidden, 2.0, hidden])
        e = torch.tensor([1, hidden > 0, 0, hidden > 0])
        update = make_update(AdversarialSettings(discrete=discrete, gan_coef=1.0), k=4 if discrete else 1)
        run(update, make_bags(), GroupLabels(t, e), visible)
        seen.append(weights(update))
    assert torch.equal(*seen)


def test_time_vectors_of_discrete_pairs():
    t, e = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0])
    assert real_time_vector(t, e, 4).tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]
    assert fake_time_vector(torch.ones(2, 4), t).tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]


def test_unused_parameters_rest_only_where_they_are_frozen():
    name = "layers.0.norm.weight"
    for freeze in (True, False):
        update = make_update(AdversarialSettings(freeze_unused=freeze), mode="graph")
        run(update, make_bags("graph"))
        moved = dict(update.generator.backbone.named_parameters())[name].detach() != 1
        assert bool(moved.any()) is not freeze


def test_no_gradient_is_left_and_the_discriminator_can_be_trained():
    update = make_update(AdversarialSettings())
    run(update, make_bags(), steps=1)
    for net in (update.generator, update.discriminator):
        assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_mixed_precision_and_wrapped_backward():
    calls = []

    def backward(loss):
        calls.append(loss.item())
        loss.backward()

    arithmetic = Arithmetic(lambda: torch.autocast("cpu", torch.bfloat16), backward)
    plain, mixed = (
        make_update(AdversarialSettings(gan_coef=0.1), dtype=torch.float32, arithmetic=a, dropout=0.0)
        for a in (None, arithmetic)
    )
    bags = make_bags(dtype=torch.float32)
    full, half = (run(update, bags, steps=1)[0] for update in (plain, mixed))
    assert half.predictions.dtype == torch.float32
    assert half.log == pytest.approx(full.log, abs=0.05)
    assert len(calls) == 4 + 4 + 1  # D, G, penalty


@pytest.mark.filterwarnings("ignore:Using backward:UserWarning")
def test_second_order_gradients_reach_the_optimiser():
    bags = make_bags()
    settings = AdversarialSettings(gan_coef=0.1, rank_coef=0.1)
    results = []
    for memory in ("bag", "group"):
        update = make_update(
            replace(settings, memory=memory), optimiser="adahessian", arithmetic=Arithmetic(second_order=True)
        )
        before = weights(update)
        run(update, bags, steps=1)
        assert bool(torch.isfinite(weights(update)).all())
        assert not torch.equal(before, weights(update))
        results.append(weights(update))
    torch.testing.assert_close(*results, rtol=0, atol=1e-9)


def test_changed_weights_are_not_answered_from_memory():
    update = make_update(AdversarialSettings(reuse_first_layer=1.0))
    bags = make_bags()
    update.discriminator_step(bags, GroupLabels(T, E))
    with torch.no_grad():
        update.generator.backbone.patch_embedding_layer.conv.weight.zero_()
    assert update._first_layers.take(0, bags[0].x) is None


def test_group_must_have_a_label_a_bag():
    update = make_update(AdversarialSettings())
    with pytest.raises(ValueError, match=r"group of 4 bags with 3 times, 4 events"):
        update.discriminator_step(make_bags(), GroupLabels(T[:3], E))
    with pytest.raises(ValueError, match="at least one bag"):
        update.generator_step([], GroupLabels(T[:0], E[:0]))


def test_batched_draws_equal_separate_passes():
    g = make_update(AdversarialSettings(), k=2).generator.eval()
    x = make_bags()[1].x
    with torch.no_grad():
        together = g.sample(g.embed(x), 5, torch_noise("gaussian", torch.Generator().manual_seed(1)))
        noise = torch_noise("gaussian", torch.Generator().manual_seed(1))
        apart = torch.stack([g(x, noise=noise) for _ in range(5)], dim=1)
    assert together.shape == (1, 5, 2)
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-12)
    assert float(together.std(dim=1).min()) > 0
