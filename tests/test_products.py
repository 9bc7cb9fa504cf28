"""Products of bfloat16 factors: right to rounding, and of the form that a CPU multiplies fast."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CONFIGS, make_batch, make_model

import jaxft
from jaxft.models.products import contract
from jaxft.training.loss import token_loss

SPECS = {
    "MD,DF->MF": ((6, 8), (8, 5)),
    "MD,VD->MV": ((6, 8), (7, 8)),
    "BKGTH,BKHS->BKGTS": ((2, 2, 3, 4, 8), (2, 2, 8, 5)),
    "BKGTS,BKSH->BKGTH": ((2, 2, 3, 4, 5), (2, 2, 5, 8)),
}


@pytest.mark.parametrize("spec", SPECS)
def test_value_and_gradients_are_the_exact_ones_rounded(spec):
    x, y = (jax.random.normal(jax.random.key(i), shape, jnp.bfloat16) for i, shape in enumerate(SPECS[spec]))
    exact = [one.astype(jnp.float32) for one in (x, y)]
    value, pull = jax.vjp(lambda x, y: contract(spec, x, y), x, y)
    want, exact_pull = jax.vjp(lambda x, y: jnp.einsum(spec, x, y, precision="highest"), *exact)
    weight = jax.random.normal(jax.random.key(2), want.shape, jnp.bfloat16)
    assert value.dtype == jnp.bfloat16
    for ours, theirs in zip((value, *pull(weight)), (want, *exact_pull(weight.astype(jnp.float32))), strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(ours.astype(jnp.float32), theirs, rtol=2**-7, atol=1e-5)


def test_logits_are_asked_for_in_float32():
    x, y = jnp.ones((2, 4), jnp.bfloat16), jnp.ones((4, 3), jnp.bfloat16)
    assert contract("MD,DF->MF", x, y, jnp.float32).dtype == jnp.float32
    gradient = jax.grad(lambda x: contract("MD,DF->MF", x, y, jnp.float32).sum())(x)
    assert gradient.dtype == jnp.bfloat16


@pytest.mark.parametrize("method", [jaxft.full(), jaxft.lora(rank=4)], ids=["full", "lora"])
@pytest.mark.parametrize("family", ["llama", "flan-t5"])
def test_every_product_of_a_step_has_bfloat16_factors_and_float32_sums(family, method):
    if jax.default_backend() != "cpu":
        pytest.skip("an accelerator sums in float32 by itself")
    model = make_model(CONFIGS[family], dtype=jnp.bfloat16)
    trainable, frozen = method.init(jax.random.key(1), {"params": model.params})
    batch = make_batch(model.config)

    def loss(trainable):
        return token_loss()(model.architecture, method.bind(trainable, frozen), batch)[0]

    text = jax.jit(jax.grad(loss)).lower(trainable).as_text()
    products = re.findall(r"dot_general.*?: \((.*?)\) -> (\S+)", text)
    assert products
    for factors, result in products:
        assert factors.count("bf16") == 2, factors
        assert result.endswith("xf32>"), result


def test_a_frozen_kernel_gets_no_gradient_product():
    x, kernel = jnp.ones((4, 8), jnp.bfloat16), jnp.ones((8, 6), jnp.bfloat16)
    text = jax.jit(jax.grad(lambda x: contract("MD,DF->MF", x, kernel).sum())).lower(x).as_text()
    assert len(re.findall("dot_general", text)) == 1  # by the kernel; the value itself is not needed
