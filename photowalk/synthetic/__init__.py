"""Procedural places with exact depth, cameras and captions: endless, seeded, in plain torch."""

from photowalk.synthetic.worlds import HELD_OUT_SEEDS, SyntheticWorld, training_seeds

__all__ = ["HELD_OUT_SEEDS", "SyntheticWorld", "training_seeds"]
