"""What a model's texts are worth: metrics, each number with the settings that made it."""

from jaxft.evaluation.metrics import METRICS, Score, score

__all__ = ["METRICS", "Score", "score"]
