"""The methods, as the law suites cross them."""

from jaxft import methods

METHODS = {
    "full": methods.full(),
    "selective-norms": methods.selective("norms"),
    "selective-last": methods.selective(["attention", "mlp"], last=1),
    "lora": methods.lora(4, 8, "all"),
    "lora-pattern": methods.lora(3, 4, ["q", "v", "mlp"], rslora=True, rank_pattern={"mlp": 2}, alpha_pattern={"v": 9}),
    "dora": methods.dora(4, 8, "all"),
    "pissa": methods.pissa(4, 8, "all"),
    "vera": methods.vera(8, "all"),
    "adapter-houlsby": methods.adapter(6),
    "adapter-pfeiffer": methods.adapter(6, "pfeiffer", "relu"),
    "adapter-parallel": methods.adapter(6, "parallel", "silu", 4.0),
    "prompt": methods.prompt(5),
    "prompt-network": methods.prompt(5, hidden=7, place="both"),
    "prefix": methods.prefix(5, hidden=0),
    "prefix-network": methods.prefix(5, hidden=7),
    "ia3": methods.ia3(),
    "union": methods.union(methods.lora(2, 4, "mlp"), methods.selective("norms")),
}

# One of each kind, for laws whose test compiles a train step.
KINDS = {
    name: METHODS[name]
    for name in (
        "full", "selective-last", "lora", "dora", "pissa", "vera", "adapter-houlsby", "adapter-parallel",
        "prompt-network", "prefix-network", "ia3", "union",
    )
}  # fmt: skip
