"""What tuning for one thing cost elsewhere: other tasks, plain text and the distance to the base, before and after.

    probes = Probes(examples, passages, prompts)          # token ids; see jaxft.runs.probes for how a recipe makes them
    before = evaluate_probes(probes, model, {"params": model.params})
    after = evaluate_probes(probes, model, method.bind(trainable, frozen), base={"params": model.params})
    forgetting(before, [], after)["backward_transfer"]

Scores are kept in a matrix `R [stages + 1, tasks]`: row 0 is the model before any tuning, row i the model after stage
i, and of tasks that are tuned for in turn the j-th is that of stage j. With T stages:

- average forgetting `F = mean over j < T of (max over stages i < T of R[i, j]) - R[T, j]`, how far each task has fallen
  from its best (Chaudhry et al. 2018, arXiv:1801.10112);
- backward transfer `BWT = mean over j < T of R[T, j] - R[j, j]`, what learning more did to what was learnt;
- forward transfer `FWT = mean over j > 1 of R[j - 1, j] - R[0, j]`, what it did to what was not yet learnt (both
  Lopez-Paz & Ranzato 2017, arXiv:1706.08840, whose row 0 is a random model; here it is the pretrained one).

In a single run no probe is tuned for: the pretrained model stands for the stage at which each was learnt. So backward
transfer is the mean change from before to after, and forgetting the mean fall from the best of before and during (the
best of noisy numbers: it is above 0 even where nothing changed). Both are of the tasks scored in 0..1 (or percent).

The distance is `KL(base || tuned) = Σ p_base (log p_base - log p_tuned)` over the vocabulary, in nats per token, on the
base's own greedy continuations of neutral prompts, teacher-forced. The loss on text is in nats per token, too; passages
are what is resampled for its interval, prompts for the divergence's.
"""

from jaxft.evaluation.forgetting.divergence import kl_to_base, text_loss
from jaxft.evaluation.forgetting.matrix import average_forgetting, backward_transfer, forward_transfer
from jaxft.evaluation.forgetting.pictures import plot_gain_forgetting, plot_matrix
from jaxft.evaluation.forgetting.probing import Probed, Probes, evaluate_probes, forgetting, mean_score

__all__ = [
    "Probed",
    "Probes",
    "average_forgetting",
    "backward_transfer",
    "evaluate_probes",
    "forgetting",
    "forward_transfer",
    "kl_to_base",
    "mean_score",
    "plot_gain_forgetting",
    "plot_matrix",
    "text_loss",
]
