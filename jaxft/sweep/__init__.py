"""Many runs as one program: one base, and a member for each setting of a grid, trained side by side by `vmap`.

    recipe, grid = load_sweep("recipe.yaml", ["--sweep.optimizer.learning_rate=1e-4,3e-4", "--sweep.train.seed=0,1,2"])
    rows = sweep(recipe, grid)               # a row a member: its settings, losses, steps

Member i is what its recipe alone would have trained, to rounding. `jaxft.sweep.grid` says what members may differ in.
"""

from jaxft.sweep.grid import VARY, load_sweep, members_of
from jaxft.sweep.run import sweep
from jaxft.sweep.show import best_of, plot, show_results
from jaxft.sweep.step import Members, sweep_loss, sweep_step

__all__ = [
    "VARY",
    "Members",
    "best_of",
    "load_sweep",
    "members_of",
    "plot",
    "show_results",
    "sweep",
    "sweep_loss",
    "sweep_step",
]
