"""What a network makes of one user's interactions with one image: the steps, and how each follows from the last.

Every interaction adds a step; a step holds what is known then and, once it was asked for, the network's answer. Steps
are never changed, so that taking one back leads to exactly what was there before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aespa.clustering import kmeans
from aespa.config import Mode
from aespa.draws import ItemDraws
from aespa.errors import DataError
from aespa.models.network import AespaNetwork
from aespa.proposing import latent_draws
from aespa.rounds import Answer, Knowledge, answer, learn, no_knowledge
from medshared.gpu import derive_seed


class Group(NamedTuple):
    """Samples that make up a proposal.

    Attributes:
        logits: float32 ``[1, 1, 4g, 4g]``, their mean.
        probability: float32 ``[1, 16g²]``, mean of their probabilities.
        share: Part of all samples, in (0, 1].
    """

    logits: Tensor
    probability: Tensor
    share: float


@dataclass
class Step:
    """What is known after some interactions, and what was computed from it so far.

    Attributes:
        action: The interaction that led here, whatever the caller keeps; null in the first step.
        knowledge: What the network is told.
        box: float32 ``[1, 4]``, network pixels; null = none.
        learns: Whether this step's own answer becomes the mask prompt of the next interaction. Not in the first step
            of SPA, whose training starts from a click, and not after a choice, which has set what is known.
        said: The answer that is shown.
        samples: The answer with all samples.
    """

    action: Any
    knowledge: Knowledge
    box: Tensor | None = None
    learns: bool = True
    said: Answer | None = None
    samples: Answer | None = None


class Dialogue:
    """One user, one image, one network.

    Args:
        network: In evaluation mode; only read.
        features: ``[1, 256, g, g]``, the embedded image.
        mode: What the network was trained for.
        n_samples: Samples of the latent.
        seed: Of the samples.
    """

    def __init__(
        self, network: AespaNetwork, features: Tensor, mode: Mode, n_samples: int, seed: int
    ) -> None:
        self.network = network
        self.features = features
        self.mode = mode
        self.n_samples = n_samples
        self.seed = seed
        self._steps = [Step(None, no_knowledge(network, 1, features.device), learns=mode != "SPA")]
        self._at = 0

    # --- steps

    @property
    def step(self) -> Step:
        """Where the user is now."""
        return self._steps[self._at]

    @property
    def actions(self) -> list[Any]:
        """The interactions that led here, in order."""
        return [step.action for step in self._steps[1 : self._at + 1]]

    @property
    def can_undo(self) -> bool:
        """Whether there is an interaction to take back."""
        return self._at > 0

    @property
    def can_redo(self) -> bool:
        """Whether an interaction was taken back."""
        return self._at + 1 < len(self._steps)

    def undo(self) -> bool:
        """Go one step back; return whether there was one."""
        possible = self.can_undo
        self._at -= possible
        return possible

    def redo(self) -> bool:
        """Go one step forward again; return whether there was one."""
        possible = self.can_redo
        self._at += possible
        return possible

    def reset(self) -> None:
        """Go to the first step and forget all others."""
        self._steps, self._at = self._steps[:1], 0

    def _add(self, step: Step) -> None:
        self._steps = [*self._steps[: self._at + 1], step]
        self._at += 1

    # --- interactions

    def click(self, x: float, y: float, label: int, action: Any) -> None:
        """Add a click at (x, y) in network pixels."""
        place = torch.tensor([[x, y]], device=self.features.device)
        known = self._carried().clicked(place, torch.tensor([label], device=self.features.device))
        self._add(Step(action, known, self.step.box))

    def draw_box(self, corners: tuple[float, float, float, float], action: Any) -> None:
        """Add a box (x, y, x, y) in network pixels."""
        self._add(Step(action, self._carried(), torch.tensor([corners], device=self.features.device)))

    @torch.no_grad()
    def choose(self, group: Group, action: Any) -> None:
        """Let a proposal be the answer, and tell the network so.

        In SPA, as in its training, the network hears of the choice by the responsibilities, and its mask prompt is
        the mean of all samples. A network of AESPA answers anew with the proposal as its mask prompt.
        """
        if self.mode != "SPA":
            self.start_from(group.logits, action, group.probability)
            return
        samples = self.samples()
        found = self.network.responsibilities(group.probability, samples.mixture)
        known = replace(self.step.knowledge, previous=samples.mean, responsibilities=found)
        shown = Answer(group.logits[None], samples.mixture)
        self._add(Step(action, known, self.step.box, learns=False, said=shown))

    @torch.no_grad()
    def start_from(self, logits: Tensor, action: Any, probability: Tensor | None = None) -> None:
        """Let another mask, ``[1, 1, 4g, 4g]`` logits, be the mask prompt and answer anew.

        Its probabilities ``[1, 16g²]`` are those of the logits, unless they are given.
        """
        known = replace(self.step.knowledge, previous=logits)
        if self.mode != "SAM":
            # The mixture does not depend on the number of samples.
            said = self.step.samples or self.said()
            shown = torch.sigmoid(logits).flatten(1) if probability is None else probability
            found = self.network.responsibilities(shown, said.mixture)
            known = replace(known, responsibilities=found)
        self._add(Step(action, known, self.step.box, learns=False))

    @torch.no_grad()
    def _carried(self) -> Knowledge:
        """Return the knowledge that the next interaction adds to: this round's mask in place of the one before."""
        step = self.step
        if not step.learns:
            return step.knowledge
        said = self.said()
        if self.mode == "SAM":
            return learn(step.knowledge, said, step.knowledge.responsibilities)
        if self.mode == "SPA":
            shown = torch.sigmoid(said.logits.float()).mean(dim=0)
        else:
            shown = torch.sigmoid(said.mean.float())
        return learn(step.knowledge, said, self.network.responsibilities(shown.flatten(1), said.mixture))

    # --- answers

    @torch.no_grad()
    def said(self) -> Answer:
        """Return the answer that is shown, computed once a step."""
        step = self.step
        if step.said is None:
            step.said = self.samples() if self.mode == "SPA" else self._ask(1)
        return step.said

    @torch.no_grad()
    def samples(self) -> Answer:
        """Return the answer with all samples, computed once a step."""
        step = self.step
        if step.samples is None:
            step.samples = self.said() if self.mode == "SAM" else self._ask(self.n_samples)
        return step.samples

    @torch.no_grad()
    def groups(self, k: int) -> list[Group]:
        """Return the samples in at most k groups, the largest first.

        Raises:
            DataError: For more groups than samples.
        """
        logits = self.samples().logits[:, 0].float()  # [N, 1, 4g, 4g]
        n = len(logits)
        if k < 1 or (k > n and self.mode != "SAM"):
            raise DataError(f"proposals must be from 1 to the number of samples, {n}; found {k}")
        maps = torch.sigmoid(logits).flatten(1)
        labels = kmeans(maps, min(k, n)).labels[0]
        members = [labels == label for label in labels.unique()]
        groups = [
            Group(
                logits[own].mean(0, keepdim=True), maps[own].mean(0, keepdim=True), float(own.float().mean())
            )
            for own in members
        ]
        return sorted(groups, key=lambda group: -group.share)

    def _ask(self, n_samples: int) -> Answer:
        """Compute an answer; its chance belongs to the number of the step."""
        draws = None
        if n_samples > 1:
            stream = ItemDraws([derive_seed(self.seed, "latents", self._at)])
            draws = latent_draws(stream, n_samples, self.features.device)
        step = self.step
        return answer(
            self.network, self.features, step.knowledge, n_samples=n_samples, draws=draws, boxes=step.box
        )
