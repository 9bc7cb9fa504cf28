"""How much host memory does loading a checkpoint take beside the weights themselves?

Question    Peak anonymous memory of a process that loads a checkpoint, over the checkpoint's bytes in the wanted dtype.
Shapes      A Llama of random weights, 1.1 GB in float32, in shards of 300 MB; loaded in float32 and in bfloat16.
Method      The checkpoint is written by one process and loaded by another, whose RssAnon is read every 5 ms; what it
            held after its imports is subtracted. On CPU the "device" is host memory too: 1.0 is the weights alone.
Expected    Below 1.3.
Command     python experiments/benchmarks/loading.py [--smoke]
Results     experiments/README.md
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path


def write(folder: Path, smoke: bool) -> None:
    import jax

    from jaxft.models import Decoder, DecoderConfig, Model
    from jaxft.pretrained import save

    layers, width, inner = (2, 128, 256) if smoke else (16, 1024, 4096)
    architecture = Decoder(DecoderConfig("llama", 8192, layers, width, 16, 16, width // 16, inner))
    params = jax.jit(architecture.init)(jax.random.key(0))
    save(folder, Model(architecture, params, None), max_shard_size=300_000_000)


def anonymous() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def measure(folder: Path, dtype: str) -> dict:
    import jax

    import jaxft

    jaxft.load(folder / "warm", dtype=dtype)  # what is imported and started lazily
    start, peak, done = anonymous(), 0, threading.Event()

    def watch():
        nonlocal peak
        while not done.is_set():
            peak = max(peak, anonymous())
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    model = jaxft.load(folder / "model", dtype=dtype)
    jax.block_until_ready(model.params)
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
    return {"dtype": dtype, "gb": size / 1e9, "peak_over_size": (peak - start) / size, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write(arguments.write / "model", arguments.smoke)
        write(arguments.write / "warm", True)
        return
    if arguments.measure:
        print(json.dumps(measure(Path(arguments.measure[0]), arguments.measure[1])))
        return
    with tempfile.TemporaryDirectory() as folder:
        smoke = ["--smoke"] if arguments.smoke else []
        subprocess.run([sys.executable, __file__, "--write", folder, *smoke], check=True)
        for dtype in ("float32", "bfloat16"):
            subprocess.run([sys.executable, __file__, "--measure", folder, dtype], check=True)


if __name__ == "__main__":
    main()
