"""jaxft's tasks as crfm-helm scenarios: `helm-run -r jaxft:task=superglue/boolq,model=jaxft/NAME`.

A task's rows are rendered as in training, each in its phrasing, and become HELM's instances: with choices, each choice
is a reference and is ranked by its log-probability (`multiple_choice_separate_original`); else a text is generated and
compared with the references. HELM's perturbations, metrics and summaries then apply as to its own scenarios, but they
perturb the whole rendered prompt.
"""

from __future__ import annotations

from typing import Any

from helm.benchmark.adaptation.adapter_spec import (
    ADAPT_GENERATION,
    ADAPT_MULTIPLE_CHOICE_SEPARATE_ORIGINAL,
    AdapterSpec,
)
from helm.benchmark.metrics.common_metric_specs import (
    get_basic_metric_specs,
    get_basic_reference_metric_specs,
    get_bias_metric_specs,
    get_generic_metric_specs,
)
from helm.benchmark.run_spec import RunSpec, run_spec_function
from helm.benchmark.scenarios.scenario import (
    CORRECT_TAG,
    TEST_SPLIT,
    Input,
    Instance,
    Output,
    Reference,
    Scenario,
    ScenarioSpec,
)

GENERATED = ["exact_match", "quasi_exact_match", "f1_score", "rouge_1", "rouge_2", "rouge_l"]


class JaxftScenario(Scenario):
    """The rows of one of jaxft's tasks; `root` is where its data lie (default: the environment's JAXFT_DATA)."""

    name = "jaxft"
    description = "A task of jaxft's library"
    tags = ["jaxft"]  # noqa: RUF012 (HELM's)

    def __init__(self, task: str, split: str = "test", limit: int | None = None, root: str | None = None):
        super().__init__()
        self.task, self.split, self.limit, self.root = task, split, limit, root

    def get_instances(self, output_path: str) -> list[Instance]:
        """Return the split's examples as HELM's test instances."""
        from jaxft.data.tasks import load_task, render_task

        task = load_task(self.task, self.root)
        rows = task.rows(self.split, limit=None if self.limit is None else int(self.limit))
        return [_instance(one, rows.id(i)) for i, one in enumerate(render_task(task, rows))]


def _instance(rendered: Any, name: str) -> Instance:
    prompt = rendered.prompt if rendered.system is None else f"{rendered.system}\n\n{rendered.prompt}"
    right = [text.strip() for text in rendered.references]
    texts = rendered.choices or right
    references = [Reference(Output(text), [CORRECT_TAG] if text in right else []) for text in texts]
    return Instance(Input(prompt), references, split=TEST_SPLIT, id=name)


@run_spec_function("jaxft")
def jaxft_run_spec(
    task: str, split: str = "test", limit: str | None = None, root: str | None = None, max_tokens: str = "64"
) -> RunSpec:
    """Return the run of a task: ranked where it has choices, generated where it has none."""
    from jaxft.data.tasks import load_task

    settings = {"task": task, "split": split, "limit": limit, "root": root}
    scenario = ScenarioSpec(class_name=f"{__name__}.JaxftScenario", args=settings)
    common: Any = {"max_train_instances": 0, "num_outputs": 1, "temperature": 0.0, "instructions": ""}
    common |= {"input_prefix": "", "output_suffix": ""}
    found = load_task(task, root)
    if found.choices is not None:
        adapter = AdapterSpec(
            method=ADAPT_MULTIPLE_CHOICE_SEPARATE_ORIGINAL, max_tokens=0, input_suffix="", output_prefix=" ", **common
        )
        metrics = get_basic_reference_metric_specs() + get_generic_metric_specs()
    else:
        stops = list(found.stop)
        adapter = AdapterSpec(
            method=ADAPT_GENERATION,
            max_tokens=int(max_tokens),
            input_suffix="\n",
            output_prefix="",
            stop_sequences=stops,
            **common,
        )
        metrics = get_basic_metric_specs(GENERATED) + get_bias_metric_specs()
    name = f"jaxft:task={task},split={split}"
    return RunSpec(name=name, scenario_spec=scenario, adapter_spec=adapter, metric_specs=metrics, groups=["jaxft"])
