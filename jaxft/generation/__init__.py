"""Text out of a model: prefill and cached decoding in one compiled loop, and the likelihood of given completions.

texts = generate(model, variables, ["Summarize: ..."], max_new_tokens=64)
scores, greedy = log_likelihood(model, variables, prompts, completions)
"""

from jaxft.generation.generate import generate
from jaxft.generation.likelihood import log_likelihood
from jaxft.generation.sampling import Sampling

__all__ = ["Sampling", "generate", "log_likelihood"]
