"""The compact policy acts and trains as the original's perceptron on the stretched window."""

from __future__ import annotations

import copy

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy

from spars.config import GameConfig
from spars.errors import DataError
from spars.game.scorers import StubScorer
from spars.models.compact_policy import CompactPolicy, _init_sums_of_orthogonal
from spars.models.replicas import wrap_to_uint8
from spars.original.resize import stretch_nearest
from spars.original.selfplay import SelfPlay

WINDOW, GRID = (4, 4, 3), (10, 9, 7)
MOVES = spaces.Discrete(6)


class _Windows(gymnasium.Env):
    """Random wrapped HU; the reward is a function of the window and the move. Stretched, or the window itself."""

    def __init__(self, window=WINDOW, grid=GRID, stretch=False) -> None:
        self.window, self.grid, self.stretch = window, grid, stretch
        self.observation_space = spaces.Box(0, 255, grid if stretch else window, np.uint8)
        self.action_space = MOVES
        self.rng = np.random.default_rng(3)

    def _observe(self):
        self.crop = self.rng.integers(-1000, 300, self.window)
        seen = wrap_to_uint8(self.crop)
        return stretch_nearest(seen, self.grid).astype(np.uint8) if self.stretch else seen

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return self._observe(), {}

    def step(self, action):
        reward = float(np.sign(self.crop[action % 4, 0, 0] + 350))
        self.steps += 1
        return self._observe(), reward, self.steps % 11 == 0, False, {}


def _policy(window=WINDOW, grid=GRID, shape=None, **keys):
    shape = shape or (window[2], window[0], window[1])
    return CompactPolicy(
        spaces.Box(0, 255, shape, np.uint8), MOVES, lambda _: 3e-4, window=window, grid=grid, **keys
    )


def _full(grid=GRID):
    return ActorCriticPolicy(spaces.Box(0, 255, (grid[2], grid[0], grid[1]), np.uint8), MOVES, lambda _: 3e-4)


def test_golden_names(golden_json):
    golden = golden_json("state_dict_ppo_mlp_policy")
    small = golden["small_example"]
    policy = _policy((8, 8, 6), (8, 8, 6))
    assert {k: list(v.shape) for k, v in policy.state_dict().items()} == small["keys"]
    assert {k: list(v.shape) for k, v in policy.full_state().items()} == small["keys"]
    assert list(policy.observation_space.shape) == small["observation_shape"]
    # The full size: the same names, with the stretched window's width in both first layers.
    compact = {
        k: list(v.shape)
        for k, v in _policy((4, 4, 2), (256, 256, 180), ortho_init=False).state_dict().items()
    }
    expected = {k: [64, 32] if s[-1] == 11_796_480 else s for k, s in golden["keys"].items()}
    assert compact == expected
    total = sum(int(np.prod(shape)) for shape in golden["keys"].values())
    assert total == golden["parameters"]


@pytest.mark.parametrize(
    ("window", "grid"),
    [((4, 4, 3), (10, 9, 7)), ((3, 3, 3), (8, 8, 6)), ((2, 3, 4), (6, 7, 5)), ((3, 2, 4), (7, 8, 5))],
    ids=["axes moved", "cubic window", "window with the channels first", "shortest axis in the middle"],
)
@pytest.mark.parametrize("view", [wrap_to_uint8, np.float32], ids=["learner", "opponent"])
def test_predictions_equal_the_full_policys(window, grid, view):
    """Through ``predict`` of models, with whatever stable-baselines3 does to the axes of either."""
    full = PPO("MlpPolicy", _Windows(window, grid, stretch=True), device="cpu", seed=0)
    keys = {"window": window, "grid": grid}
    small = PPO(CompactPolicy, _Windows(window, grid), policy_kwargs=keys, device="cpu")
    small.policy.load_full_state(full.policy.state_dict())
    crops = view(np.random.default_rng(1).integers(-1000, 300, (5, *window)))
    stretched = stretch_nearest(crops, grid).astype(crops.dtype)
    with torch.no_grad():
        expected = full.policy.get_distribution(full.policy.obs_to_tensor(stretched)[0]).distribution.logits
        found = small.policy.get_distribution(small.policy.obs_to_tensor(crops)[0]).distribution.logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert expected.std() > 1e-4
    assert (
        small.predict(crops, deterministic=True)[0].tolist()
        == full.predict(stretched, deterministic=True)[0].tolist()
    )


def _ppo_loss(policy, features, batch):
    """The loss of one minibatch of PPO, from features, so that it can be computed in float64."""
    pi, vf = policy.mlp_extractor(features)
    distribution = policy._get_action_dist_from_latent(pi)
    ratio = torch.exp(distribution.log_prob(batch["actions"]) - batch["old"])
    advantages = (batch["advantages"] - batch["advantages"].mean()) / (batch["advantages"].std() + 1e-8)
    policy_loss = -torch.min(advantages * ratio, advantages * ratio.clamp(0.8, 1.2)).mean()
    value_loss = (batch["returns"] - policy.value_net(vf).flatten()).square().mean()
    return policy_loss + 0.5 * value_loss, policy_loss, value_loss


def test_training_in_double_precision_equals_the_full_policys():
    torch.manual_seed(0)
    full, compact = _full().double(), _policy().double()
    compact.load_full_state(full.state_dict())
    optimizer = torch.optim.Adam(full.parameters(), lr=3e-3, eps=1e-5)
    for group in compact.optimizer.param_groups:
        group["lr"] = 3e-3
    rng = np.random.default_rng(0)
    clipped, first = 0, None
    for _ in range(100):
        crops = wrap_to_uint8(rng.integers(-1000, 300, (8, *WINDOW)))
        inputs = (
            torch.from_numpy(
                stretch_nearest(crops, GRID, dtype=np.float64).transpose(0, 3, 1, 2).reshape(8, -1)
            )
            / 255
        )
        windows = compact.features_extractor(
            torch.from_numpy(crops.astype(np.float64).transpose(0, 3, 1, 2)) / 255
        )
        numbers = {key: torch.from_numpy(rng.standard_normal(8)) for key in ("advantages", "returns")}
        batch = {
            "actions": torch.from_numpy(rng.integers(0, 6, 8)),
            "old": torch.full((8,), -1.8, dtype=torch.float64),
        }
        batch |= numbers
        results = []
        for policy, features, stepper in ((full, inputs, optimizer), (compact, windows, compact.optimizer)):
            loss = _ppo_loss(policy, features, batch)[0]
            stepper.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
            stepper.step()
            results.append((loss.item(), norm.item()))
        assert results[1] == pytest.approx(results[0], rel=1e-10)
        clipped += results[0][1] > 0.5
        first = first or results[0][0]
    assert clipped >= 50
    for name, value in compact.replicas.compact_state(full.state_dict()).items():
        torch.testing.assert_close(compact.state_dict()[name], value, rtol=1e-9, atol=1e-10)


def test_ppo_trains_both_alike():
    """Whole rollouts and updates of stable-baselines3, same seeds, single precision."""
    keys = {"n_steps": 32, "batch_size": 8, "n_epochs": 1, "device": "cpu"}
    full = PPO("MlpPolicy", _Windows(stretch=True), **keys)
    compact = PPO(CompactPolicy, _Windows(), policy_kwargs={"window": WINDOW, "grid": GRID}, **keys)
    compact.policy.load_full_state(full.policy.state_dict())
    before = copy.deepcopy(compact.policy.state_dict())
    actions, norms = [], []
    for model in (full, compact):
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002 (stable-baselines3 permutes minibatches with it)
        model.learn(96)
        actions.append(model.rollout_buffer.actions.ravel().tolist())
        norms.append(model.rollout_buffer.values.ravel())
    assert actions[0] == actions[1]
    np.testing.assert_allclose(norms[1], norms[0], atol=1e-4)
    expected = compact.policy.replicas.compact_state(full.policy.state_dict())
    for name, value in compact.policy.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=2e-5)
        assert not torch.equal(value, before[name]), name


def test_self_play_equals_the_originals(golden_volumes, fill_golden_weights):
    """Three iterations of the original's loop with either policy: the same game and the same training."""
    grid, window = (20, 20, 16), (6, 6, 4)
    config = GameConfig(
        mode="faithful", full_image_size=grid, target_size=grid, window_size=window, termination_threshold=0.6,
        device="cpu",
    )  # fmt: skip
    volume = golden_volumes.golden_volume(grid, 16)
    stretched = SelfPlay(config, *volume, StubScorer(40, 85, grid), policy="mlp")
    native = SelfPlay(config, *volume, StubScorer(40, 85, grid), policy="compact")
    fill_golden_weights(stretched.model.policy, 5)
    native.model.policy.load_full_state(stretched.model.policy.state_dict())
    rows = []
    for play in (stretched, native):
        torch.manual_seed(1)
        np.random.seed(2)  # noqa: NPY002
        rows.append([play.iterate() for _ in range(3)])
    assert rows[0] == rows[1]
    first, second = stretched.model.rollout_buffer, native.model.rollout_buffer
    np.testing.assert_array_equal(second.actions, first.actions)
    assert len(np.unique(first.actions)) > 2
    np.testing.assert_allclose(second.values, first.values, atol=1e-3)
    np.testing.assert_allclose(second.advantages, first.advantages, atol=1e-3)
    np.testing.assert_array_equal(native.last_map, stretched.last_map)
    expected = native.model.policy.replicas.compact_state(stretched.model.policy.state_dict())
    for name, value in native.model.policy.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-3)


def test_models_are_saved_and_go_on(tmp_path):
    keys = {"window": WINDOW, "grid": GRID}
    model = PPO(CompactPolicy, _Windows(), n_steps=16, batch_size=8, policy_kwargs=keys, device="cpu", seed=1)
    model.learn(16)
    model.save(tmp_path / "policy.zip")
    loaded = PPO.load(tmp_path / "policy.zip", env=_Windows(), device="cpu")
    assert loaded.policy.replicas == model.policy.replicas
    batch = {
        "actions": torch.arange(6),
        "old": torch.full((6,), -1.8),
        "advantages": torch.arange(6.0),
        "returns": torch.ones(6),
    }
    for policy in (model.policy, loaded.policy):
        policy.optimizer.zero_grad()
        _ppo_loss(policy, policy.extract_features(torch.arange(288).reshape(6, 3, 4, 4) % 256), batch)[
            0
        ].backward()
        policy.optimizer.step()
    for name, value in model.policy.state_dict().items():
        assert torch.equal(value, loaded.policy.state_dict()[name]), name
    model.policy.save(tmp_path / "alone.pt")
    alone = CompactPolicy.load(tmp_path / "alone.pt", device="cpu")
    assert torch.equal(alone.action_net.weight, model.policy.action_net.weight)


def test_other_windows_are_refused():
    with pytest.raises(DataError, match=r"windows of 4×4×3 voxels, .* have the shape \(4, 4, 4\)"):
        _policy(shape=(4, 4, 4))


@pytest.mark.parametrize(("voxels", "inputs"), [(5, 5), (5, 7), (5, 40), (90, 100), (90, 400)])
def test_starting_weights_follow_the_law_of_orthogonal_ones(voxels, inputs):
    """Entries of a sum of replicas, over √r: mean square gain²/N; all of them where nothing is repeated."""
    torch.manual_seed(0)
    units = 4
    drawn = torch.empty(400, units, voxels, dtype=torch.float64)
    for weight in drawn:
        _init_sums_of_orthogonal(weight, inputs, gain=2**0.5)  # type: ignore[arg-type]
    gram = drawn @ drawn.transpose(1, 2) / 2
    diagonal = gram.diagonal(dim1=1, dim2=2)
    assert diagonal.mean().item() == pytest.approx(voxels / inputs, rel=0.05)
    assert diagonal.max() <= 1 + 1e-9
    if voxels == inputs:
        torch.testing.assert_close(gram, torch.eye(units, dtype=torch.float64).expand_as(gram))
    # Against orthogonal matrices, summed over replicas (one voxel takes all that is repeated).
    rows = torch.stack(
        [torch.nn.init.orthogonal_(torch.empty(units, inputs, dtype=torch.float64)) for _ in range(400)]
    )
    repeated = rows[..., voxels - 1 :].sum(-1, keepdim=True) / (inputs - voxels + 1) ** 0.5
    sums = torch.cat([rows[..., : voxels - 1], repeated], dim=-1)
    expected = (sums @ sums.transpose(1, 2)).diagonal(dim1=1, dim2=2)
    assert diagonal.std().item() == pytest.approx(expected.std().item(), rel=0.15, abs=1e-9)


@pytest.fixture(scope="module")
def pieces(golden_npz, fill_golden_weights):
    golden = golden_npz("ppo_pieces")
    policy = _policy((8, 8, 6), (8, 8, 6))
    fill_golden_weights(policy, int(golden["weight_seed"]))
    return golden, policy


@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_golden_advantages(pieces, precision):
    golden, _ = pieces
    shape = golden["rewards"].shape
    buffer = RolloutBuffer(
        len(shape) and shape[0], spaces.Box(0, 1, (1,)), MOVES, "cpu", 0.95, 0.99, shape[1]
    )
    kind = np.float32 if precision == "f32" else np.float64
    buffer.reset()
    buffer.rewards, buffer.values = golden["rewards"].astype(kind), golden["values"].astype(kind)
    buffer.episode_starts = golden[
        "episode_starts"
    ]  # float32 in both goldens, and with it the product γλ(1 − done)
    buffer.advantages = np.zeros(shape, kind)
    buffer.compute_returns_and_advantage(
        torch.from_numpy(golden["last_values"].astype(kind)), golden["last_dones"]
    )
    suffix, tolerance = ("", 1e-4) if precision == "f32" else ("_f64", 1e-8)
    np.testing.assert_allclose(buffer.advantages, golden[f"advantages{suffix}"], atol=tolerance)
    np.testing.assert_allclose(buffer.returns, golden[f"returns{suffix}"], atol=tolerance)


@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_golden_minibatch(pieces, precision):
    golden, policy = pieces
    exact = precision == "f64"
    suffix, tolerance = ("_f64", 1e-8) if exact else ("", 1e-4)
    kind = torch.float64 if exact else torch.float32
    policy = copy.deepcopy(policy).to(kind)
    rows = golden["minibatch"]

    def take(name):
        return torch.from_numpy(golden[name].swapaxes(0, 1).reshape(-1)[rows]).to(kind)

    observations = torch.from_numpy(golden["observations"].swapaxes(0, 1).reshape(-1, 6, 8, 8)[rows]).to(kind)
    batch = {
        "actions": take("actions").long(), "old": take("old_log_probs"),
        "advantages": take("advantages"), "returns": take("returns"),  # the float32 ones in both goldens
    }  # fmt: skip
    features = policy.features_extractor(observations / 255)
    pi, vf = policy.mlp_extractor(features)
    distribution = policy._get_action_dist_from_latent(pi)
    log_prob = distribution.log_prob(batch["actions"])
    found = {
        "logits": policy.action_net(pi), "values": policy.value_net(vf), "log_prob": log_prob,
        "entropy": distribution.entropy(), "ratio": torch.exp(log_prob - batch["old"]),
    }  # fmt: skip
    for name, value in found.items():
        np.testing.assert_allclose(
            value.detach(), golden[f"mb_{name}{suffix}"], rtol=0, atol=tolerance, err_msg=name
        )
    total, policy_loss, value_loss = _ppo_loss(policy, features, batch)
    losses = [value.item() for value in (policy_loss, value_loss, -distribution.entropy().mean(), total)]
    np.testing.assert_allclose(
        losses, golden[f"mb_losses_policy_value_entropy_total{suffix}"], rtol=tolerance, atol=tolerance
    )
    total.backward()
    parameters = dict(policy.named_parameters())
    assert list(parameters) == [str(name) for name in golden["parameter_names"]]
    norms = [p.grad.norm().item() for p in parameters.values()]
    np.testing.assert_allclose(norms, golden[f"mb_grad_norms_per_parameter{suffix}"], rtol=tolerance)
    gradient = parameters["mlp_extractor.policy_net.0.weight"].grad[:4].detach().clone()
    np.testing.assert_allclose(gradient, golden["mb_grad_first_policy_layer"], atol=1e-5)
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5).item()
    assert norm == pytest.approx(float(golden[f"mb_grad_norm{suffix}"]), rel=tolerance)
    policy.optimizer.step()
    first = parameters["mlp_extractor.policy_net.0.weight"].detach()[:4]
    np.testing.assert_allclose(first, golden["after_step_first_policy_layer_rows0_4"], atol=1e-5)
    np.testing.assert_allclose(
        parameters["action_net.weight"].detach(), golden["after_step_action_net_weight"], atol=1e-5
    )


def test_the_divisor_of_observations_that_are_no_bytes() -> None:
    """HU as they are, and HU / 255 as in mode paper, are one input to one policy each."""
    space = spaces.Box(-np.inf, np.inf, WINDOW, np.float32)
    keys = {"window": WINDOW, "grid": GRID}
    raw = CompactPolicy(space, MOVES, lambda _: 3e-4, **keys)
    scaled = CompactPolicy(space, MOVES, lambda _: 3e-4, **keys, divisor=1.0)
    scaled.load_state_dict(raw.state_dict())
    hu = torch.from_numpy(np.random.default_rng(0).uniform(-1000, 300, (3, *WINDOW)).astype(np.float32))
    torch.testing.assert_close(raw.predict_values(hu), scaled.predict_values(hu / 255))
    assert scaled._get_constructor_parameters()["divisor"] == 1.0
    wrapped = _policy(divisor=7.0)  # bytes are divided by stable-baselines3, whatever is asked for
    assert float(wrapped.features_extractor.divisor) == 1.0


def test_a_policy_made_again_keeps_its_divisor() -> None:
    space = spaces.Box(-np.inf, np.inf, WINDOW, np.float32)
    policy = CompactPolicy(space, MOVES, lambda _: 3e-4, window=WINDOW, grid=GRID, divisor=1.0)
    parameters = policy._get_constructor_parameters()
    assert CompactPolicy(**parameters).features_extractor.divisor == 1.0
