"""Data: rows from files, templates, token ids, and batches that are a pure function of (seed, step).

    parts = splits("data/dialogsum", limit={"train": 1000}, columns=["dialogue", "summary"])
    format = Format(prompt="Summarise:\\n{{ dialogue }}\\nSummary:", completion=" {{ summary }}")
    examples, report = encode(parts["train"], format, tokenizer, max_length=512)
    batches = Batches(examples, batch_size=8, seed=0, pad_token_id=tokenizer.pad_token_id)

Nothing here knows a model, a method or JAX: numpy in, numpy out.
"""

from jaxft.data.batches import Batch, Batches, collate, evaluation_batches
from jaxft.data.chat import chat_texts
from jaxft.data.collating import collate_rows
from jaxft.data.encoding import Encoded, EncodeReport, encode
from jaxft.data.mixture import Mixture
from jaxft.data.prefetching import prefetch
from jaxft.data.rows import Row, Rows
from jaxft.data.show import show_example
from jaxft.data.sources import carve, read, split_name, splits
from jaxft.data.templates import Format, Rendered, render
from jaxft.data.tokens import encode_prompts

__all__ = [
    "Batch",
    "Batches",
    "EncodeReport",
    "Encoded",
    "Format",
    "Mixture",
    "Rendered",
    "Row",
    "Rows",
    "carve",
    "chat_texts",
    "collate",
    "collate_rows",
    "encode",
    "encode_prompts",
    "evaluation_batches",
    "prefetch",
    "read",
    "render",
    "show_example",
    "split_name",
    "splits",
]
