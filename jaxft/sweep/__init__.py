"""Many runs as one program: one base, and a member for each setting of a grid, trained side by side by `vmap`.

    recipe, grid = load_sweep("recipe.yaml", ["--sweep.optimizer.learning_rate=1e-4,3e-4", "--sweep.train.seed=0,1,2"])
    rows = sweep(recipe, grid)               # a row a member: its settings, losses, steps

Member i is what its recipe alone would have trained, to rounding. `jaxft.sweep.grid` says what members may differ in.
"""

import importlib

# Public name -> its module, imported at first use: a page of a sweep needs its tables, and no JAX.
_HOMES = {
    **dict.fromkeys(("VARY", "load_sweep", "members_of"), "jaxft.sweep.grid"),
    "sweep": "jaxft.sweep.run",
    **dict.fromkeys(("best_of", "plot", "show_results"), "jaxft.sweep.show"),
    **dict.fromkeys(("Members", "sweep_loss", "sweep_step"), "jaxft.sweep.step"),
}

__all__ = sorted(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxft.sweep' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
