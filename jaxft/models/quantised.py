"""Kernels held in 8 or 4 bits: the frozen base of QLoRA (Dettmers et al. 2023, arXiv:2305.14314).

    params = quantize_params(model.params, "nf4")      # or jaxft.load(source, quantize="nf4")
    method = jaxft.lora(rank=16)                       # float32 adapters on a base of 4.5 bits a number

A quantised kernel is a pytree in the dense kernel's place: codes and scales, whose first axis is that of the layers, so
that a scan over layers takes them apart. `layers.dot` makes a kernel dense when its turn has come, in the
activation's dtype; forward and backward pass each do, so that of rolled layers at most one is dense at a time. (Of
unrolled ones XLA on CPU keeps several; without rematerialisation the scan holds the codes, not the kernels, twice.)

>>> kernel = NF4.of(jnp.linspace(-1, 1, 64)[:, None])
>>> kernel.shape, kernel.codes.shape, kernel.scales.shape
((64, 1), (32, 1), (1, 1))
>>> float(jnp.abs(kernel.astype(jnp.float32)[:, 0] - jnp.linspace(-1, 1, 64)).max()) < 0.16
True
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxft.errors import UsageError, nearest
from jaxft.models.products import contract

BLOCK, SMALLEST_BLOCK = 64, 16  # rows of a kernel that share a scale in NF4


def normal_levels() -> tuple[float, ...]:
    """Return the 16 levels of NormalFloat4: quantiles of the normal distribution, scaled to [-1, 1], one of them 0.

    Eight above zero and seven below, each side evenly spaced in probability (the paper's section 3 and appendix E).
    """
    outermost = 1 - (1 / 32 + 1 / 30) / 2
    above, below = ([NormalDist().inv_cdf(p) for p in np.linspace(outermost, 0.5, count + 1)[:-1]] for count in (8, 7))
    return tuple(level / above[0] for level in (*(-level for level in below), 0.0, *reversed(above)))


LEVELS = normal_levels()
EDGES = tuple((low + high) / 2 for low, high in itertools.pairwise(LEVELS))


@dataclasses.dataclass(frozen=True, eq=False)
class Quantised:
    """A kernel `[n, D, F]` (`[D, F]` inside a layer) in few bits; `dtype` is that of the dense kernel it stands for."""

    codes: jax.Array
    scales: jax.Array
    dtype: Any

    name: ClassVar[str]

    @property
    def ndim(self) -> int:
        return self.codes.ndim


@functools.partial(jax.tree_util.register_dataclass, data_fields=["codes", "scales"], meta_fields=["dtype"])
class Int8(Quantised):
    """`code * scale`: codes int8 in ±127, one float32 scale for each output column, `[n, 1, F]`."""

    name = "int8"

    @classmethod
    def of(cls, kernel: jax.Array) -> Int8:
        """Return `kernel` `[..., D, F]` rounded: within half a scale, a 254th of its column's largest number."""
        wide = kernel.astype(jnp.float32)
        scales = jnp.max(jnp.abs(wide), axis=-2, keepdims=True) / 127
        return cls(jnp.round(wide / _divisor(scales)).astype(jnp.int8), scales, jnp.dtype(kernel.dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.codes.shape)

    def astype(self, dtype: Any) -> jax.Array:
        """Return the dense kernel."""
        return (self.codes.astype(jnp.float32) * self.scales).astype(dtype)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["codes", "scales"], meta_fields=["dtype"])
class NF4(Quantised):
    """`LEVELS[code] * scale`: two codes a byte, `[n, D/2, F]`, one float32 scale for each block, `[n, D/block, F]`.

    A block is 64 neighbours along D; its first half lies in the low bits, its second half in the high bits.
    """

    name = "nf4"

    @classmethod
    def of(cls, kernel: jax.Array) -> NF4:
        """Return `kernel` `[..., D, F]` at the nearest levels; D has to be divisible by `block_size(D)`."""
        *stack, width, out = kernel.shape
        size = block_size(width)
        blocks = kernel.astype(jnp.float32).reshape(*stack, width // size, size, out)
        scales = jnp.max(jnp.abs(blocks), axis=-2)
        shares = blocks / _divisor(scales)[..., None, :]
        codes = functools.reduce(jnp.add, [(shares > edge).astype(jnp.uint8) for edge in EDGES])
        low, high = jnp.split(codes, 2, axis=-2)
        return cls((low | (high << 4)).reshape(*stack, width // 2, out), scales, jnp.dtype(kernel.dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        *stack, half, out = self.codes.shape
        return (*stack, 2 * half, out)

    def astype(self, dtype: Any) -> jax.Array:
        """Return the dense kernel."""
        *stack, half, out = self.codes.shape
        blocks = self.scales.shape[-2]
        # Levels that come with the codes: JAX would broadcast constants before the loop over layers, and keep them.
        codes, table = jax.lax.optimization_barrier((self.codes, jnp.asarray(LEVELS, jnp.float32)))
        codes = codes.reshape(*stack, blocks, 1, half // blocks, out)
        shifts = np.array([0, 4], np.uint8).reshape(*(1,) * len(stack), 1, 2, 1, 1)
        levels = _looked_up((codes >> shifts) & 15, list(table))  # [..., blocks, 2, block / 2, F]
        return (levels * self.scales[..., None, None, :]).astype(dtype).reshape(self.shape)


KINDS: dict[str, type[Int8] | type[NF4]] = {"int8": Int8, "nf4": NF4}


def _divisor(scales):
    return jnp.where(scales == 0, 1, scales)  # a column or block of zeros


def _looked_up(codes, levels):
    # By the bits of the code: selects are faster than a gather of single numbers.
    if len(levels) == 1:
        return levels[0]
    half = len(levels) // 2
    low, high = (_looked_up(codes, part) for part in (levels[:half], levels[half:]))
    return jnp.where((codes & half) != 0, high, low)


def block_size(width: int) -> int:
    """Return how many of `width` rows share a scale in NF4: the largest power of two up to 64 that divides it."""
    return min(BLOCK, width & -width)


def is_quantised(leaf: Any) -> bool:
    """Say whether `leaf` is a quantised kernel: the `is_leaf` with which JAX's tree functions see it as one."""
    return isinstance(leaf, Quantised)


@jax.custom_vjp
def product(x: jax.Array, kernel: Quantised) -> jax.Array:
    """Multiply `x` `[..., D]` by a quantised `kernel` `[D, F]`, to which no gradient flows.

    The backward pass keeps the codes and makes the kernel dense again.
    """
    return _forward(x, kernel)[0]


def _forward(x, kernel):
    # Bound to what it is multiplied with: else XLA may make every kernel dense ahead of its turn, outside the loop over
    # tokens say, or keep a dense one from the forward pass for the backward pass.
    x, kernel = jax.lax.optimization_barrier((x, kernel))
    return _flat_product("MD,DF->MF", x, kernel.astype(x.dtype)), kernel


def _backward(kernel, gradient):
    gradient, kernel = jax.lax.optimization_barrier((gradient, kernel))
    return _flat_product("MF,DF->MD", gradient, kernel.astype(gradient.dtype)), None


def _flat_product(spec, x, kernel):
    return contract(spec, x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], -1)


product.defvjp(_forward, _backward)


def by_layer(function: Callable[..., Any], kernel: Any, *stacked: Any) -> Any:
    """Apply `function(kernel [D, F], ...)` to every layer of `kernel` `[n, D, F]` and of what is stacked beside it.

    To all at once where the kernel is dense; one after another where it is quantised, so that one is dense at a time.
    """
    if is_quantised(kernel):
        return jax.lax.map(lambda layer: function(*layer), (kernel, *stacked))
    return jax.vmap(function)(kernel, *stacked)


@functools.partial(jax.jit, static_argnames="kind")
def quantize_kernel(kernel: jax.Array, kind: str) -> Quantised:
    """Return `kernel` `[n, D, F]` in few bits, quantised layer by layer."""
    return jax.lax.map(KINDS[kind].of, kernel)


def fits(path: str, shape: tuple[int, ...], kind: str) -> bool:
    """Say whether the leaf at `path`, as in "layers/0/attention/q/kernel", is one that is quantised.

    That is any kernel of the layers; for NF4, if blocks of at least 16 divide its inputs.
    """
    kernel = "layers/" in path and path.endswith("/kernel") and len(shape) == 3
    return kernel and (kind != "nf4" or block_size(shape[1]) >= SMALLEST_BLOCK)


def check_kind(kind: str) -> None:
    """Raise `UsageError` for a kind of quantisation that there is not."""
    if kind not in KINDS:
        raise UsageError(f"quantize: unknown kind {kind!r}{nearest(str(kind), KINDS)}")


def quantize_params(params: Any, kind: str) -> Any:
    """Return `params` with every kernel of the layers held in few bits, "int8" or "nf4"; the rest as it is.

    int8 has one scale for each output column. NF4 has blocks of 64 inputs (32 or 16 where 64 does not divide them; a
    kernel that none of these divides stays dense). Works on shapes under `jax.eval_shape` too. Raises `UsageError` for
    another kind, params that are quantised already, and if no kernel can be.
    """
    check_kind(kind)

    def held(keys, leaf):
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        if is_quantised(leaf):
            raise UsageError(f"quantize: {path} is held as {leaf.name} already; take jaxft.dequantize_params first")
        return quantize_kernel(leaf, kind) if fits(path, leaf.shape, kind) else leaf

    made = jax.tree_util.tree_map_with_path(held, params, is_leaf=is_quantised)
    check_some(made, kind)
    return made


def check_some(params: Any, kind: str) -> None:
    """Raise `UsageError` if nothing in `params` is quantised."""
    if not any(map(is_quantised, jax.tree.leaves(params, is_leaf=is_quantised))):
        raise UsageError(f"quantize: {kind} fits no kernel of this model; NF4 needs widths divisible by 16, int8 none")


def dequantize_params(params: Any) -> Any:
    """Return `params` with every quantised kernel dense again, rounded as it is, in the dtype that it had before."""
    return jax.tree.map(lambda leaf: _dense(leaf) if is_quantised(leaf) else leaf, params, is_leaf=is_quantised)


@jax.jit
def _dense(kernel):
    return kernel.astype(kernel.dtype)
