"""Self-play reinforcement learning for weakly supervised liver-tumour segmentation on CT."""
