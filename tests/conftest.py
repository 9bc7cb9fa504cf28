"""Tiny models and batches that the suites share. Eight fake devices; implicit rank promotion raises."""

import functools
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        # Compiling is what a test costs: the programs are the same, less polished by LLVM.
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
)
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax
import numpy as np
import pytest

from jaxft.models import T5, Decoder, DecoderConfig, Model, T5Config
from jaxft.models.stack import Numerics

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_configure(config):
    # What one process has compiled, the other one and the next run load.
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))


@pytest.fixture(scope="module", autouse=True)
def few_programs_at_a_time():
    # A compiled program is several memory maps; Linux grants a process 65,530, and XLA crashes at the next one.
    yield
    jax.clear_caches()


# All sizes differ, so that a shape tells which axis it is.
LLAMA = DecoderConfig("llama", vocab_size=101, num_layers=3, width=48, num_heads=6, num_kv_heads=2, head_dim=10,
                      mlp_width=88, tie_embeddings=False, eos_token_ids=(2,))  # fmt: skip
FLAN_T5 = T5Config("t5", vocab_size=103, num_layers=2, num_decoder_layers=3, width=48, num_heads=6, head_dim=10,
                   mlp_width=88, gated=True, activation="gelu_new")  # fmt: skip
T5_V1 = T5Config("t5", vocab_size=103, num_layers=2, num_decoder_layers=2, width=48, num_heads=4, head_dim=12,
                 mlp_width=88, gated=False, activation="relu", tie_embeddings=True)  # fmt: skip
CONFIGS = {"llama": LLAMA, "flan-t5": FLAN_T5, "t5-v1.0": T5_V1}


def make_model(config, **numerics):
    architecture = (T5 if isinstance(config, T5Config) else Decoder)(config, Numerics(**numerics))
    params = architecture.init(jax.random.key(0))
    # Kernels large enough that every branch of the network matters to the logits.
    return Model(architecture, jax.tree.map(lambda p: p * 3 if p.ndim > 1 and p.std() < 0.03 else p, params), None)


def make_batch(config, rows=4, length=12, source=9, seed=0):
    """A right-padded batch in which the second half of each row counts; no token is drawn twice by accident."""
    random = np.random.default_rng(seed)
    lengths = random.integers(length // 2 + 2, length + 1, rows)
    lengths[0] = length
    steps = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
    real = steps < lengths[:, None]
    batch = {
        "tokens": np.where(real, random.integers(3, config.vocab_size, (rows, length)), 0).astype(np.int32),
        "targets": np.where(real, random.integers(3, config.vocab_size, (rows, length)), 0).astype(np.int32),
        "positions": np.where(real, steps, 0).astype(np.int32),
        "segments": real.astype(np.int32),
        "weights": (real & (steps >= length // 2)).astype(np.float32),
    }
    if isinstance(config, T5Config):
        steps = np.tile(np.arange(source, dtype=np.int32), (rows, 1))
        real = steps < random.integers(4, source + 1, rows)[:, None]
        batch["encoder_tokens"] = np.where(real, random.integers(3, config.vocab_size, real.shape), 0).astype(np.int32)
        batch["encoder_positions"] = np.where(real, steps, 0).astype(np.int32)
        batch["encoder_segments"] = real.astype(np.int32)
    return batch


@functools.partial(jax.jit, static_argnums=0)
def _logits(architecture, variables, batch):
    return architecture.head(variables, architecture.hidden(variables, batch))


def apply(model, variables, batch):
    """The model's logits, compiled once for all tests that have the same model and shapes."""
    return _logits(model.architecture, variables, batch)


def assert_close(actual, expected, tolerance=2e-5):
    """Compare two trees leaf by leaf, relative to the largest number in the expected tree."""
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale), actual, expected)


@pytest.fixture(scope="session", params=["llama", "flan-t5"])
def model(request):
    return make_model(CONFIGS[request.param])


@pytest.fixture(scope="session")
def llama():
    return make_model(LLAMA)


@pytest.fixture(scope="session")
def flan_t5():
    return make_model(FLAN_T5)
