"""Searching a volume under a budget of window scores: by a trained agent, and by the rules it is compared with.

A search says which windows of the lattice it scored. Scores come from a function of flat lattice indices, which counts
what it computes; a window scored before costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spars.agent import Agent
from spars.errors import DataError
from spars.game.arena import observe_places
from spars.game.views import Views
from spars.lattice import MOVES, Lattice

if TYPE_CHECKING:
    from spars.config import GameConfig

# Flat lattice indices [n] → their scores [n].
Lookup = Callable[[NDArray[np.int64]], NDArray[Any]]


@dataclass(frozen=True)
class SearchSettings:
    """How an agent searches.

    Attributes:
        budget: Windows that may be scored, both players together.
        start_moves: Moves from one start.
        start_patience: Moves of both players without a new score above ``floor`` that end a start early.
        floor: Score that counts as something found.
        candidates: Unseen places from which the critic chooses the next start; 1 = a random one.
        players: 1 or 2.
    """

    budget: int
    start_moves: int = 12
    start_patience: int = 1
    floor: float = 0.3
    candidates: int = 64
    players: int = 2


class SearchResult(NamedTuple):
    """What searches of one volume did.

    Attributes:
        seen: Windows that were scored, bool ``[n, len(lattice)]``.
        moves: Moves of each player, int64 ``[n]``.
        starts: Places that the search began from, int64 ``[n]``.
    """

    seen: NDArray[np.bool_]
    moves: NDArray[np.int64]
    starts: NDArray[np.int64]


def budget_of(lattice: Lattice, share: float) -> int:
    """Return how many windows a share of the lattice is, rounded down, at least 1.

    Args:
        lattice: The window positions.
        share: In (0, 1].
    """
    return max(1, int(share * len(lattice) + 1e-9))


def search_settings(config: GameConfig, lattice: Lattice) -> SearchSettings:
    """Return how an agent searches, from a resolved configuration."""
    return SearchSettings(
        budget=budget_of(lattice, config.budget),
        start_moves=config.start_moves,
        start_patience=config.start_patience,
        candidates=config.candidates,
    )


def search(
    agent: Agent,
    volume: NDArray[np.float32],
    lookup: Lookup,
    settings: SearchSettings,
    *,
    n: int = 1,
    seed: int = 0,
) -> SearchResult:
    """Let the agent play both players on one volume until the budget is spent, ``n`` times independently.

    From each start both players move until nothing new turns up; the critic then chooses where to go on, among random
    unseen places. What either player has scored from any start is known to both.

    Args:
        agent: The agent.
        volume: ``[grid]`` in [0, 1].
        lookup: Scores of windows.
        settings: Budget and habits.
        n: Number of searches.
        seed: Of starts and moves.

    Returns:
        What each search scored: exactly ``budget`` windows, or the whole lattice.
    """
    lattice = agent.meta.lattice
    views = Views([volume], lattice, agent.meta.stride, agent.meta.context)
    agent.generator.manual_seed(seed)
    hunt = _Search(agent, views, lookup, settings, n, np.random.default_rng(seed))
    # Every start scores a window that is new, so that the budget is spent in a finite number of rounds.
    while hunt.active.any():
        hunt.begin_starts()
        hunt.move()
    return SearchResult(hunt.seen, hunt.total, hunt.starts)


class _Search:
    def __init__(
        self,
        agent: Agent,
        views: Views,
        lookup: Lookup,
        settings: SearchSettings,
        n: int,
        rng: np.random.Generator,
    ) -> None:
        lattice = views.lattice
        self.agent, self.views, self.lookup, self.settings, self.rng = agent, views, lookup, settings, rng
        self.lattice, self.shape = lattice, np.array(lattice.shape)
        self.budget = min(settings.budget, len(lattice))
        self.seen = np.zeros((n, len(lattice)), np.bool_)
        self.known = np.zeros(
            (1, len(lattice)), np.float32
        )  # one board; scores of windows that any search saw
        self.index = np.zeros((n, settings.players, 3), np.int64)
        self.moves = np.full(n, settings.start_moves)  # every search begins with a start
        self.quiet = np.zeros(n, np.int64)
        self.total, self.starts = np.zeros(n, np.int64), np.zeros(n, np.int64)

    @property
    def active(self) -> NDArray[np.bool_]:
        return self.seen.sum(axis=1) < self.budget

    def begin_starts(self) -> None:
        """Place the players of searches whose last start has run dry."""
        s = self.settings
        games = np.flatnonzero(
            self.active & ((self.quiet >= s.start_patience) | (self.moves >= s.start_moves))
        )
        if not len(games):
            return
        places = np.stack([self._candidates(int(game)) for game in games])
        chosen = places[:, 0]
        if places.shape[1] > 1:
            flat = places.reshape(-1)
            worth = self.agent.value(
                self._observe(np.repeat(games, places.shape[1]), self.lattice.unflat(flat))
            )
            chosen = places[np.arange(len(games)), worth.reshape(places.shape).argmax(axis=1)]
        self.index[games] = self.lattice.unflat(chosen)[:, None]
        self.moves[games], self.quiet[games] = 0, 0
        self.starts[games] += 1
        self._score(games, chosen)

    def _candidates(self, game: int) -> NDArray[np.int64]:
        """Draw unseen places, half of them beside the best windows seen; where fewer are left, some twice."""
        unseen = np.flatnonzero(~self.seen[game])
        count = self.settings.candidates
        drawn = self.rng.choice(unseen, count, replace=len(unseen) < count)
        beside = self._beside_best(game, count // 2)
        drawn[: len(beside)] = beside
        return drawn

    def _beside_best(self, game: int, count: int) -> list[int]:
        """Return unseen neighbours of seen windows, those of the best first."""
        seen = np.flatnonzero(self.seen[game])
        found: dict[int, None] = {}
        for flat in seen[np.argsort(-self.known[0, seen], kind="stable")]:
            if len(found) >= count or self.known[0, flat] <= self.settings.floor:
                break
            found.update((n, None) for n in neighbours(self.lattice, int(flat)) if not self.seen[game, n])
        return list(found)[:count]

    def move(self) -> None:
        """Move all players of searches that have budget left, player by player."""
        games = np.flatnonzero(self.active)
        if not len(games):
            return
        rows = np.repeat(games, self.settings.players)
        actions = self.agent(self._observe(rows, self.index[games].reshape(-1, 3)))
        target = self.index[games] + MOVES[actions].reshape(len(games), -1, 3)
        inside = ((target >= 0) & (target < self.shape)).all(axis=-1, keepdims=True)
        self.index[games] = np.where(inside, target, self.index[games])
        found = np.zeros(len(games), np.bool_)
        for player in range(self.settings.players):
            flat = self.lattice.flat(self.index[games, player])
            left = ~self.seen[games, flat] & (self.seen[games].sum(axis=1) < self.budget)
            scores = self._score(games[left], flat[left])
            found[left] |= scores > self.settings.floor
        self.moves[games] += 1
        self.total[games] += 1
        self.quiet[games] = np.where(found, 0, self.quiet[games] + 1)

    def _score(self, games: NDArray[np.int64], flat: NDArray[np.int64]) -> NDArray[Any]:
        scores = self.lookup(flat)
        self.known[0, flat] = scores
        self.seen[games, flat] = True
        return scores

    def _observe(self, games: NDArray[np.int64], index: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        board = np.zeros(len(games), np.int64)
        memory = self.agent.meta.memory
        return observe_places(self.views, board, index, self.seen[games], self.known, memory)


def random_walk(
    lattice: Lattice, budget: int, rng: np.random.Generator, start: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """Walk from a start, the centre by default, until the budget of different windows is spent.

    Args:
        lattice: The window positions.
        budget: Windows that may be scored.
        rng: Draws the moves.
        start: Lattice index, int64 ``[3]``.

    Returns:
        Windows that were scored, bool ``[len(lattice)]``.
    """
    budget = min(budget, len(lattice))
    seen = np.zeros(len(lattice), np.bool_)
    index = lattice.centre if start is None else start
    shape = np.array(lattice.shape)
    seen[lattice.flat(index)] = True
    n_seen = 1
    while n_seen < budget:
        for move in MOVES[rng.integers(0, len(MOVES), 256)]:
            target = index + move
            if (target < 0).any() or (target >= shape).any():
                continue
            index = target
            flat = int(lattice.flat(index))
            n_seen += not seen[flat]
            seen[flat] = True
            if n_seen == budget:
                break
    return seen


def greedy_climb(
    lattice: Lattice,
    lookup: Lookup,
    budget: int,
    rng: np.random.Generator | None = None,
) -> NDArray[np.bool_]:
    """Climb the scores from the centre: score all neighbours, go to the best, stop where none is better.

    Args:
        lattice: The window positions.
        lookup: Scores of windows.
        budget: Windows that may be scored.
        rng: With one, further climbs begin at random unseen places until the budget is spent; without, the climb
            from the centre is all.

    Returns:
        Windows that were scored, bool ``[len(lattice)]``.
    """
    budget = min(budget, len(lattice))
    ledger = _Ledger(lattice, lookup, budget)
    flat = int(lattice.flat(lattice.centre))
    while True:
        ledger.score([flat])
        while ledger.left:
            around = neighbours(lattice, flat)
            ledger.score(around)
            known = [place for place in around if ledger.seen[place]]
            best = max(known, key=lambda place: ledger.scores[place])
            if ledger.scores[best] <= ledger.scores[flat]:
                break
            flat = best
        if rng is None or not ledger.left:
            return ledger.seen
        flat = int(rng.choice(np.flatnonzero(~ledger.seen)))


def best_first(lattice: Lattice, lookup: Lookup, budget: int) -> NDArray[np.bool_]:
    """Grow from the centre: always score the neighbours of the best window that still has unscored ones.

    Args:
        lattice: The window positions.
        lookup: Scores of windows.
        budget: Windows that may be scored.

    Returns:
        Windows that were scored, bool ``[len(lattice)]``.
    """
    import heapq

    ledger = _Ledger(lattice, lookup, min(budget, len(lattice)))
    first = int(lattice.flat(lattice.centre))
    ledger.score([first])
    open_windows = [(-float(ledger.scores[first]), first)]
    while ledger.left and open_windows:
        flat = heapq.heappop(open_windows)[1]
        for place in ledger.score(neighbours(lattice, flat)):
            heapq.heappush(open_windows, (-float(ledger.scores[place]), place))
    return ledger.seen


def top_windows(scores: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Return the ``count`` best windows of a full table; what no search can know beforehand.

    Args:
        scores: Of all windows, ``[len(lattice)]``.
        count: Number of windows.
    """
    if not 1 <= count <= len(scores):
        raise DataError(f"count must be from 1 to {len(scores)}, found {count}")
    seen = np.zeros(len(scores), np.bool_)
    seen[np.argsort(-scores, kind="stable")[:count]] = True
    return seen


def neighbours(lattice: Lattice, flat: int) -> list[int]:
    """Return the flat indices of the windows one move away, in the order of the actions."""
    target = lattice.unflat(np.array(flat)) + MOVES
    inside = ((target >= 0) & (target < np.array(lattice.shape))).all(axis=1)
    return lattice.flat(target[inside]).tolist()


class _Ledger:
    """What a search has scored, and what it may still score."""

    def __init__(self, lattice: Lattice, lookup: Lookup, budget: int) -> None:
        self.lookup, self.left = lookup, budget
        self.seen = np.zeros(len(lattice), np.bool_)
        self.scores = np.full(len(lattice), -np.inf)

    def score(self, places: list[int]) -> list[int]:
        """Score what is not yet scored, as far as the budget goes, and return it."""
        new = [place for place in places if not self.seen[place]][: self.left]
        if new:
            self.scores[new] = self.lookup(np.array(new, np.int64))
            self.seen[new] = True
            self.left -= len(new)
        return new
