"""Put a pretrained own T5 where it is shipped: the model directory, and a card with what was measured.

Command     python experiments/pretraining/ship.py --size tiny      (after own_t5.py and measure.py)
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from pathlib import Path

from own_t5 import RUNS, SIZES
from texts import LEFT_OUT, P3, tasks

from jaxft.pretrained import config as configs
from jaxft.pretrained.atomic import replaced
from jaxft.pretrained.safetensors_file import open_folder

FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
OWN = Path(__file__).parents[2] / "jaxft" / "own"

CARD = Path(__file__).with_name("card.md")
LICENCES = {
    "FLAN chain of thought (aqua, creak, ecqa, gsm8k, qasc, sensemaking)": "Apache-2.0; each its own: Apache-2.0, MIT, "
    "CDLA-Sharing 1.0, CC BY 4.0, CC BY-SA",
    "E2E (text only)": "CC BY-SA 4.0",
    "DART (development part)": "MIT; of its entries those of E2E CC BY-SA 4.0, of WebNLG CC BY-NC-SA 4.0",
    "BoolQ (2,000 of train)": "CC BY-SA 3.0",
    "Dolly (150 rows)": "CC BY-SA 3.0",
    "Self-Instruct seed tasks": "Apache-2.0",
    "Dialogues and support conversations made by jaxft": "Apache-2.0",
}  # fmt: skip


def card(size: str, folder: Path) -> str:
    """Return the model card of a finished run with what `measure.py` has found so far."""
    plan = json.loads((folder / "seen.json").read_text())
    shape, config = SIZES[size], configs.read_folder(folder / "model")
    superni = sorted({f"{task.licence}" for task in tasks()["superni"]})
    data = {
        f"Super-NaturalInstructions ({len(tasks()['superni'])} tasks)": "Apache-2.0; " + ", ".join(superni),
        f"P3 sample ({', '.join(P3)})": "prompts Apache-2.0; sets CC BY 4.0, CC BY-SA 3.0 or 4.0, or MIT, as their "
        "authors state",
        **LICENCES,
    }
    return CARD.read_text(encoding="utf-8").format(
        size=size, weights=_weights(folder / "model"), hardware="two CPU cores", tokens=round(plan["tokens"]),
        steps=plan["steps"],        batch_size=plan["batch_size"], shape=" + ".join(map(str, plan["shape"])),
        longest=plan["shape"][0], width=shape.width, layers=shape.layers, heads=shape.num_heads,
        head_dim=shape.head_dim, mlp=shape.mlp_width, vocabulary=config.vocab_size, left_out=", ".join(LEFT_OUT),
        schedule=_schedule(plan), data="\n".join(f"| {name} | {licence} |" for name, licence in data.items()),
        scores=_scores(folder),
    )  # fmt: skip


def _schedule(plan) -> str:
    if plan["steps"] < plan["planned"]:
        return "It was stopped while the learning rate was still constant: more training would lower the loss."
    return "The learning rate fell to 0 over the last fifth."


def _weights(folder: Path) -> int:
    return sum(math.prod(shape) for shape in open_folder(folder).shapes.values())


def _scores(folder: Path) -> str:
    lines = []
    if (folder / "losses.json").is_file():
        found = json.loads((folder / "losses.json").read_text())
        lines += ["Loss per target token on held-out text and tasks (nats):", "",
                  "| | trained | untrained | unigram |", "|---|---|---|---|"]  # fmt: skip
        for kind, name in (("span_corruption", "span corruption"), ("instructions", "instructions")):
            values = " | ".join(f"{found[one][kind]:.2f}" for one in ("trained", "untrained", "unigram"))
            lines.append(f"| {name} | {values} |")
    if (folder / "zero.json").is_file():
        lines += ["", "Without tuning (95 % intervals by bootstrap):", "",
                  "| tasks | n | metric | trained | untrained |", "|---|---|---|---|---|"]  # fmt: skip
        for name, found in json.loads((folder / "zero.json").read_text()).items():
            for metric in [one for one in ("accuracy", "rougeL", "bleu", "exact_match") if one in found["trained"]][:2]:
                values = " | ".join(_interval(found[label][metric]) for label in ("trained", "untrained"))
                lines.append(f"| {name} | {found['n']} | {metric} | {values} |")
    return "\n".join(lines)


def _interval(score: list[float]) -> str:
    value, *ends = score
    return f"{value:.3f}" + (f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="tiny")
    size = parser.parse_args().size
    source = RUNS / f"t5-{size}"
    with replaced(OWN / f"t5-{size}", ("config.json",)) as folder:
        for name in FILES:
            shutil.copy(source / "model" / name, folder / name)
        (folder / "README.md").write_text(card(size, source), encoding="utf-8")
    print(OWN / f"t5-{size}", sum(path.stat().st_size for path in (OWN / f"t5-{size}").iterdir()), "bytes")


if __name__ == "__main__":
    main()
