"""Self-play reinforcement learning for weakly supervised liver-tumour segmentation on CT."""

ENVIRONMENT_ID = "spars/WindowGame-v0"


def register_envs() -> None:
    """Make ``gymnasium.make("spars/WindowGame-v0", boards=…, rules=…)`` known to Gymnasium; twice does no harm."""
    import gymnasium

    if ENVIRONMENT_ID not in gymnasium.registry:
        gymnasium.register(ENVIRONMENT_ID, entry_point="spars.game.single_env:WindowGame")
