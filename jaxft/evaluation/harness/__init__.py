"""Public benchmarks by EleutherAI's lm-evaluation-harness (`pip install jaxft[lm-eval]`), run on jaxft's models.

results = evaluate_tasks("google/flan-t5-small", ["mmlu", "super_glue"], data_root="mirrors", limit=50)

`model.HarnessModel` is lm-eval's model; `tasks/` adds what it lacks; `mirrors` makes data roots for offline use.
"""
