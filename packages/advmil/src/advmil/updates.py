"""One update of generator and discriminator from one group of bags; that of the baselines is beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from advmil import losses
from advmil.backpropagation import (
    Arithmetic,
    GroupLoss,
    Memory,
    backpropagate,
    full_precision,
    penalise,
    trained_parameters,
    without_gradients,
)
from advmil.baseline_update import BaselineSettings, BaselineUpdate
from advmil.config import Config
from advmil.groups import Bag, FirstLayers, Group, GroupLabels, StepResult, input_of, make_group, number
from advmil.models.discriminator import Discriminator
from advmil.models.generator import Generator
from advmil.noise import NoiseSource, RecordedNoise
from advmil.sharing import Draws, GroupWork
from medshared.distributed import Share, optimizer_parameters

__all__ = [
    "AdversarialSettings",
    "AdversarialUpdate",
    "Arithmetic",
    "BaselineSettings",
    "BaselineUpdate",
    "GroupLabels",
    "StepResult",
]


@dataclass(frozen=True)
class AdversarialSettings:
    """Losses of AdvMIL and how they are computed."""

    discrete: bool = False  # hazards of time bins instead of a time
    loss_d: losses.DiscriminatorLoss = "bce"
    gan_coef: float = 0.004  # 0: the discriminator takes no part
    l1_coef: float | None = 1e-5
    recon_norm: losses.Norm = "l1"
    recon_alpha: float = 0.0
    recon_gamma: float = 0.0
    mle_alpha: float = 0.0
    rank_coef: float = 0.0
    rank_gamma: float = 1.0
    rank_norm: losses.Norm = "l1"
    rank_weight: bool = False
    memory: Memory = "bag"
    freeze_unused: bool = True  # no penalty on parameters that reach no output
    draws: Draws = "stream"
    reuse_first_layer: float = 0.8  # share of bags whose first layer of G outlives D's step (N x h numbers)
    # The original's defects; only the first can be asked for in a configuration, the others are for comparison.
    bce_faithful: bool = False  # the mis-parenthesised loss of D
    gan_off_faithful: bool = False  # train D at gan_coef 0 too, and log the penalty within the time loss
    visibility_faithful: bool = False  # discrete: real pairs and masks from hidden labels
    events_inverted_faithful: bool = False  # discrete: likelihood with events and censored swapped

    @classmethod
    def from_config(cls, config: Config) -> AdversarialSettings:
        """Take the settings from a configuration."""
        config = config.resolved()
        return cls(
            discrete=config.is_discrete,
            loss_d=config.loss_netD,
            gan_coef=config.loss_gan_coef,
            l1_coef=config.loss_regl1_coef,
            recon_norm=config.loss_recon_norm,
            recon_alpha=config.loss_recon_alpha,
            recon_gamma=config.loss_recon_gamma,
            mle_alpha=config.loss_mle_alpha,
            rank_coef=config.loss_rank_coef,
            rank_gamma=config.loss_rank_gamma,
            rank_norm=config.loss_rank_norm,
            rank_weight=config.loss_rank_weight,
            memory=config.memory,
            freeze_unused=bool(config.freeze_unused),
            draws=config.draws or "stream",
            bce_faithful=bool(config.loss_bce_legacy),
        )


def real_time_vector(t: Tensor, e: Tensor, n_bins: int) -> Tensor:
    """Return what stands for the true time of a discrete real pair.

    One-hot of the bin for an event; for a censored bag all zero up to its bin, and nothing is known beyond.

    Args:
        t: Bin, ``[n]``.
        e: 1 for an event, ``[n]``.
        n_bins: K.

    Returns:
        ``[n, K]``.
    """
    bins = torch.arange(n_bins, device=t.device)
    return ((bins[None] == t[:, None]) & (e[:, None] > 0)).to(t.dtype)


def fake_time_vector(hazards: Tensor, t: Tensor) -> Tensor:
    """Return predicted hazards ``[n, K]``, zero beyond the observed bin ``t`` ``[n]``."""
    bins = torch.arange(hazards.shape[-1], device=hazards.device)
    return hazards * (bins[None] <= t[:, None])


class AdversarialUpdate:
    """Updates of generator and discriminator from groups of bags.

    Args:
        generator: G.
        discriminator: D.
        opt_g: Optimiser of G.
        opt_d: Optimiser of D.
        settings: Losses.
        arithmetic: How passes are run.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        opt_g: Optimizer,
        opt_d: Optimizer,
        settings: AdversarialSettings,
        arithmetic: Arithmetic | None = None,
    ) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.opt_g, self.opt_d = opt_g, opt_d
        self.settings, self.arithmetic = settings, arithmetic or Arithmetic()
        self._first_layers = FirstLayers(generator.backbone)
        self._penalised = trained_parameters(generator, generator.unused if settings.freeze_unused else ())

    @property
    def _like(self) -> Tensor:
        return next(self.generator.parameters())

    @property
    def adversarial(self) -> bool:
        """Whether the discriminator takes part."""
        return self.settings.gan_coef > 0 or self.settings.gan_off_faithful

    # --- D

    def discriminator_step(
        self,
        bags: Sequence[Bag],
        labels: GroupLabels,
        visible: Sequence[bool] | Tensor | None = None,
        noise: NoiseSource | None = None,
        share: Share | None = None,
    ) -> StepResult:
        """Update D on one group: real pairs of visible events against fake pairs of all bags.

        G predicts in evaluation mode and without a graph; a bag is embedded once for both of its pairs.

        Args:
            bags: The group.
            labels: Its labels.
            visible: Whether each label may be used; None is all.
            noise: One draw a bag; None is zeros.
            share: Which bags are this process's; the places of the others hold nothing. By default all.

        Returns:
            The predictions and their scores before the update, from which training metrics are computed.
        """
        group = make_group(bags, labels, visible, self._like)
        self.generator.eval()
        self.discriminator.train()
        self._first_layers.clear()
        self.opt_d.zero_grad(set_to_none=True)
        real = self._real_pairs(group)
        shares = 1 / len(bags), 1 / max(sum(real), 1)
        work = GroupWork(len(bags), self.settings.draws, share)
        predictions: list[Tensor] = []
        fakes: list[Tensor] = []
        reals: list[Tensor] = []
        parts: list[Tensor] = []
        for i in work.own:
            work.begin(i)
            bag = bags[i]
            x, extra = input_of(bag, self._like)
            keep = i < self.settings.reuse_first_layer * len(bags)  # the first ones are also freed first
            predictions.append(self._predict(i, bag, x, extra, noise, keep))
            if not self.adversarial:
                continue
            fake_score, real_score = self._pair_scores(x, predictions[-1], group, i, real[i])
            part = self._pair_loss(fake_score, real_score, shares)
            if self.settings.memory == "bag":
                self.arithmetic.differentiate(part)
                part = part.detach()
            parts.append(part)
            fakes.append(fake_score.detach())
            reals += [real_score.detach()] if real[i] else []
        work.end()
        stacked = work.gather(predictions).cpu()
        if not self.adversarial:
            return StepResult(stacked, None, {})
        if self.settings.memory == "group":
            self.arithmetic.differentiate(torch.stack(parts).sum())
        work.add_gradients(optimizer_parameters(self.opt_d))
        self.opt_d.step()
        self.opt_d.zero_grad(set_to_none=True)
        of_fakes = work.gather(fakes)
        log = {"Loss_D": number(work.total(parts, self._like)), "D_fake": number(of_fakes.mean())}
        if any(real):
            log["D_real"] = number(work.mean(reals, self._like))
        return StepResult(
            stacked,
            of_fakes.reshape(-1).cpu(),
            {f"train_batch/netD/{key}": value for key, value in log.items()},
        )

    @torch.no_grad()
    def _predict(
        self, i: int, bag: Bag, x: Tensor, extra: Tensor | None, noise: NoiseSource | None, keep: bool
    ) -> Tensor:
        with self.arithmetic.forward():
            backbone = self.generator.backbone
            patches = backbone.first_layer(x)
            embedding = backbone.encode(patches, extra)
            if keep:
                self._first_layers.keep(i, bag.x, patches)
            return full_precision(self.generator.head(embedding, noise))

    def _real_pairs(self, group: Group) -> list[bool]:
        """Return which bags give a real pair."""
        if not self.settings.discrete:
            events = (group.e > 0).tolist()
            return [event and seen for event, seen in zip(events, group.seen, strict=True)]
        return [True] * len(group.seen) if self.settings.visibility_faithful else group.seen

    def _fake_times(self, prediction: Tensor, group: Group, i: int) -> Tensor:
        if self.settings.discrete and (group.seen[i] or self.settings.visibility_faithful):
            return fake_time_vector(prediction, group.t[i : i + 1])
        return prediction

    def _pair_scores(
        self, x: Tensor, prediction: Tensor, group: Group, i: int, has_real: bool
    ) -> tuple[Tensor, Tensor]:
        times = [self._fake_times(prediction, group, i)]
        if has_real:
            t, e = group.t[i : i + 1], group.e[i : i + 1]
            discrete = self.settings.discrete
            times.append(real_time_vector(t, e, prediction.shape[1]) if discrete else t[:, None])
        with self.arithmetic.forward():
            scores = self.discriminator.score(self.discriminator.embed_x(x), torch.cat(times))
        scores = full_precision(scores)
        return scores[:1], scores[1:]

    def _pair_loss(self, fake: Tensor, real: Tensor, shares: tuple[float, float]) -> Tensor:
        kind, faithful = self.settings.loss_d, self.settings.bce_faithful
        of_fake = losses.fake_terms_faithful if faithful else losses.fake_terms
        of_real = losses.real_terms_faithful if faithful else losses.real_terms
        return of_fake(fake, kind).sum() * shares[0] + of_real(real, kind).sum() * shares[1]

    # --- G

    def generator_step(
        self,
        bags: Sequence[Bag],
        labels: GroupLabels,
        visible: Sequence[bool] | Tensor | None = None,
        noise: NoiseSource | None = None,
        share: Share | None = None,
    ) -> dict[str, float]:
        """Update G on one group: time loss of visible labels, adversarial loss of all bags, L1 penalty.

        D scores in evaluation mode; its bag embedding has no graph and its weights get no gradient.

        Args:
            bags: The group; after a discriminator step on the same bags their first layer is not computed again.
            labels: Its labels.
            visible: Whether each label may be used; None is all.
            noise: One draw a bag; None is zeros.
            share: As for :meth:`discriminator_step`.

        Returns:
            Values under the original's tracker names.
        """
        group = make_group(bags, labels, visible, self._like)
        self.generator.train()
        self.discriminator.eval()
        self.opt_g.zero_grad(set_to_none=True)
        work = GroupWork(len(bags), self.settings.draws, share)
        step = _GeneratorPass(self, group, noise, work)
        with without_gradients(self.discriminator):
            backpropagate(
                len(bags),
                step.forward,
                GroupLoss(step.loss_of_bag, step.ranking if step.ranked else None),
                memory=self.settings.memory,
                device=self._like.device,
                arithmetic=self.arithmetic,
                work=work,
            )
        work.end()
        work.add_gradients(optimizer_parameters(self.opt_g))
        penalty = penalise(self._penalised, self.settings.l1_coef, self.arithmetic)
        self.opt_g.step()
        self.opt_g.zero_grad(set_to_none=True)
        self._first_layers.clear()
        return step.log(number(penalty))

    def step(
        self,
        bags: Sequence[Bag],
        labels: GroupLabels,
        visible: Sequence[bool] | Tensor | None = None,
        noise: NoiseSource | None = None,
        gen_updates: int = 1,
        share: Share | None = None,
    ) -> StepResult:
        """Update D once and G ``gen_updates`` times; the log holds D's values and those of G's last update."""
        result = self.discriminator_step(bags, labels, visible, noise, share)
        log = dict(result.log)
        for _ in range(gen_updates):
            log.update(self.generator_step(bags, labels, visible, noise, share))
        return StepResult(result.predictions, result.fake_scores, log)


class _GeneratorPass:
    """Forward pass and loss of every bag in one generator step."""

    def __init__(
        self, update: AdversarialUpdate, group: Group, noise: NoiseSource | None, work: GroupWork
    ) -> None:
        self._work = work
        self._update, self._settings, self._group = update, update.settings, group
        self._noise = noise
        self._recorded: dict[int, RecordedNoise] = {}
        self._inputs: tuple[int, Tensor, Tensor | None] | None = None
        self._fakes: dict[int, Tensor] = {}
        self._supervised: dict[int, Tensor] = {}
        self._ranking = torch.zeros(())
        self.ranked = self._settings.rank_coef > 0 and not self._settings.discrete and group.n_seen > 1

    def _input(self, i: int) -> tuple[Tensor, Tensor | None]:
        if self._inputs is None or self._inputs[0] != i:
            self._inputs = (i, *input_of(self._group.bags[i], self._update._like))
        return self._inputs[1:]

    def _noise_of(self, i: int) -> NoiseSource | None:
        """Return the bag's noise: drawn the first time, the same in a second pass."""
        if self._noise is None:
            return None
        if i in self._recorded:
            return self._recorded[i].replay()
        return self._recorded.setdefault(i, RecordedNoise(self._noise))

    def forward(self, i: int) -> Tensor:
        self._work.begin(i)
        x, extra = self._input(i)
        generator = self._update.generator
        known = self._update._first_layers.take(i, self._group.bags[i].x)
        with self._update.arithmetic.forward():
            embedding = generator.embed(x, extra, known)
            return full_precision(generator.head(embedding, self._noise_of(i)))

    def loss_of_bag(self, i: int, prediction: Tensor) -> Tensor | None:
        parts = [self._adversarial(i, prediction), self._time_loss(i, prediction)]
        present = [part for part in parts if part is not None]
        return sum(present[1:], present[0]) if present else None

    def _adversarial(self, i: int, prediction: Tensor) -> Tensor | None:
        if not self._update.adversarial:
            return None
        discriminator, coef = self._update.discriminator, self._settings.gan_coef
        with self._update.arithmetic.forward():
            with torch.no_grad():
                embedded = discriminator.embed_x(self._input(i)[0])
            score = discriminator.score(embedded, self._update._fake_times(prediction, self._group, i))
        score = full_precision(score).sum()
        self._fakes[i] = score.detach()
        return -score * (coef / len(self._group.bags)) if coef else None

    def _time_loss(self, i: int, prediction: Tensor) -> Tensor | None:
        group, settings = self._group, self._settings
        if not group.seen[i]:
            return None
        t, e = group.t[i : i + 1], group.e[i : i + 1]
        if settings.discrete:
            e = 1 - e if settings.events_inverted_faithful else e
            terms = losses.mle_terms(prediction, t, e, alpha=settings.mle_alpha)
        else:
            terms = losses.recon_terms(
                prediction,
                t,
                e,
                alpha=settings.recon_alpha,
                gamma=settings.recon_gamma,
                norm=settings.recon_norm,
            )
        loss = terms.sum() / group.n_seen
        self._supervised[i] = loss.detach()
        return loss

    def ranking(self, predictions: Tensor) -> Tensor:
        group, settings = self._group, self._settings
        loss = settings.rank_coef * losses.rank_loss(
            predictions[group.visible],
            group.t[group.visible],
            group.e[group.visible],
            gamma=settings.rank_gamma,
            norm=settings.rank_norm,
            add_weight=settings.rank_weight,
        )
        self._ranking = loss.detach()
        return loss

    def log(self, penalty: float) -> dict[str, float]:
        supervised = number(self._ranking)
        if self._group.n_seen:
            supervised += number(self._work.total(list(self._supervised.values()), self._update._like))
        values = {"Loss_G_time": supervised, "Loss_G_total": supervised + penalty}
        if self._update.adversarial:
            fake = number(self._work.mean(list(self._fakes.values()), self._update._like))
            values |= {"Loss_G_fake": -fake, "D_fake_avg": fake}
            values["Loss_G_total"] -= self._settings.gan_coef * fake
        if self._settings.gan_off_faithful and self._settings.gan_coef == 0:
            values["Loss_G_time"] = values["Loss_G_total"]
        return {f"train_batch/netG/{key}": value for key, value in values.items()}
