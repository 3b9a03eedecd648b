"""Predictions of networks over patients: one pass of the backbone gives what separate passes give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from advmil.config import Config
from advmil.inference import middle_sample, predict_baseline, predict_generator
from advmil.models.build import build_baseline, build_discriminator, build_generator
from advmil.noise import torch_noise
from advmil.run_data import load_run_data

CPU = torch.device("cpu")


def noise(seed: int = 0):
    return torch_noise("uniform", torch.Generator().manual_seed(seed))


@pytest.fixture
def setting(tiny_settings):
    """Build configuration, data and networks."""

    def build(**changes):
        config = Config.model_validate(tiny_settings(**({"bcb_mode": "abmil"} | changes))).resolved()
        torch.manual_seed(1)
        return config, load_run_data(config), build_generator(config), build_discriminator(config)

    return build


@pytest.mark.parametrize("backbone", ["abmil", "patch", "cluster", "graph"])
@pytest.mark.parametrize("digits", ["0-1", "1-1"])
def test_thirty_draws_equal_separate_passes(backbone, digits, setting):
    config, data, generator, discriminator = setting(bcb_mode=backbone, gen_noi_noise=digits)
    patients = data.sets["test"][:3]
    fast = predict_generator(
        generator, discriminator, data, patients, config, samples=30, noise=noise(), device=CPU
    )
    source = noise()
    generator.eval()
    for row, patient in enumerate(patients):
        bag = data.source.load(patient)
        with torch.no_grad():
            first = generator(bag.x, bag.extra, noise=source)
            draws = torch.cat([generator(bag.x, bag.extra, noise=source) for _ in range(30)])
            score = discriminator.eval()(bag.x, first)
        assert fast.samples[row] == pytest.approx(draws[:, 0].numpy(), abs=1e-6)
        assert fast.fake_scores[row] == pytest.approx(float(score), abs=1e-6)
        middle = np.sort(draws[:, 0].numpy())[14:16].mean()
        assert fast.point[row] == pytest.approx(middle, abs=1e-6)


def test_zero_noise_is_deterministic(setting):
    config, data, generator, discriminator = setting()
    patients = data.sets["test"]
    both = [
        predict_generator(generator, discriminator, data, patients, config, samples=1, noise=None, device=CPU)
        for _ in range(2)
    ]
    assert np.array_equal(both[0].point, both[1].point)
    assert both[0].samples is None
    bag = data.source.load(patients[0])
    with torch.no_grad():
        direct = generator.eval()(bag.x, bag.extra, zero_noise=True)
    assert both[0].point[0] == pytest.approx(float(direct), abs=1e-6)


def test_bags_can_be_changed_on_the_way(setting):
    config, data, generator, _ = setting()
    patients = data.sets["test"][:2]
    seen = []

    def half(patient, bag):
        seen.append(patient)
        return bag._replace(x=bag.x[:, :32])

    found = predict_generator(
        generator, None, data, patients, config, samples=1, noise=None, device=CPU, change=half
    )
    assert seen == list(patients)
    assert found.fake_scores is None
    with torch.no_grad():
        direct = generator.eval()(data.source.load(patients[0]).x[:, :32], zero_noise=True)
    assert found.point[0] == pytest.approx(float(direct), abs=1e-6)


def test_the_discriminator_sees_the_known_bins_of_hazards_only(setting):
    config, data, generator, discriminator = setting(
        task="disc_gansurv", time_format="quantile", gen_dims="8-4", disc_nety_in_dim=4
    )
    patients = data.sets["test"]
    found = predict_generator(
        generator, discriminator, data, patients, config, samples=1, noise=None, device=CPU
    )
    assert found.hazards.shape == (len(patients), 4)
    for row, patient in enumerate(patients):
        known = np.arange(4) <= found.t[row]
        with torch.no_grad():
            score = discriminator.eval()(
                data.source.load(patient).x, torch.from_numpy(found.hazards[row] * known)[None].float()
            )
        assert found.fake_scores[row] == pytest.approx(float(score), abs=1e-6)


def test_a_baseline_predicts_in_evaluation_mode(setting):
    config, data, _, _ = setting(task="surv_cox", mlp_dropout=0.9)
    network = build_baseline(config).train()
    patients = data.sets["test"][:3]
    both = [predict_baseline(network, data, patients, config, device=CPU) for _ in range(2)]
    assert np.array_equal(both[0].point, both[1].point)
    assert both[0].kind == "cox"


def test_the_middle_of_draws():
    draws = torch.tensor([[4.0], [1.0], [3.0], [2.0]])
    assert middle_sample(draws, lower=True).tolist() == [2.0]
    assert middle_sample(draws, lower=False).tolist() == [2.5]
    assert (
        middle_sample(draws[:3], lower=False).tolist()
        == middle_sample(draws[:3], lower=True).tolist()
        == [3.0]
    )
    assert middle_sample(draws + 1, lower=True, centre="mean").tolist() == [3.5]
