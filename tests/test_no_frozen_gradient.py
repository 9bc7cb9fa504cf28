"""Law 7: no product in the gradient of a method that leaves kernels alone has the shape of one."""

import jax
import pytest
from conftest import make_batch
from every_method import METHODS

from jaxft.methods import full, lora
from jaxft.training.loss import token_loss


def jaxprs(value):
    if hasattr(value, "jaxpr"):
        yield from jaxprs(value.jaxpr)
    elif hasattr(value, "eqns"):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from jaxprs(item)


def dot_shapes(jaxpr):
    """The output shapes of all products, through the bodies of scan, cond, remat and custom gradients."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            yield tuple(eqn.outvars[0].aval.shape)
        for value in eqn.params.values():
            for inner in jaxprs(value):
                yield from dot_shapes(inner)


def kernel_shaped_products(model, method):
    trainable, frozen = method.init(jax.random.key(0), {"params": model.params})
    batch, loss = make_batch(model.config, rows=3, length=13), token_loss()  # 39 tokens: no kernel's size

    def total(trainable):
        return loss(model.architecture, method.bind(trainable, frozen), batch, jax.random.key(0))[0]

    shapes = list(dot_shapes(jax.make_jaxpr(jax.grad(total))(trainable).jaxpr))
    assert len(shapes) > 20  # the walk found the bodies
    flat = jax.tree_util.tree_flatten_with_path(model.params)[0]
    kernels = {leaf.shape[-2:] for path, leaf in flat if path[-1].key in ("kernel", "embedding")}
    kernels |= {shape[::-1] for shape in kernels}
    return [shape for shape in shapes if shape[-2:] in kernels]


FROZEN = {"dropout": lora(4, 8, "all", dropout=0.1)} | {
    name: method for name, method in METHODS.items() if not name.startswith(("full", "selective"))
}


@pytest.mark.parametrize("method", FROZEN.values(), ids=FROZEN)
def test_no_product_has_a_frozen_kernels_shape(model, method):
    assert kernel_shaped_products(model, method) == []


def test_the_test_can_fail(model):
    assert len(kernel_shaped_products(model, full())) >= 7
