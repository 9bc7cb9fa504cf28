"""Generated texts against one or more references, by the metrics that jaxft's own runs are scored with."""

from jaxft.evaluation.metrics import score


def references(doc):
    """Return the texts that a document's answer is compared to; data sets name them differently."""
    many = doc.get("references")
    return list(many) if many else [doc["summary"] if "summary" in doc else doc["target"]]


def first(doc):
    return references(doc)[0]


def process_results(doc, results):
    item = results[0].strip(), references(doc)
    return dict.fromkeys(("rouge1", "rouge2", "rougeL", "bleu"), item)


def _metric(name):
    def scored(items, resamples=0):
        return score(*zip(*items, strict=True), [name], resamples=resamples)[name]

    def aggregation(items):
        return scored(items).value

    aggregation.__name__ = name
    aggregation.interval = lambda items: scored(items, resamples=1000).interval
    return aggregation


rouge1, rouge2, rougeL, bleu = map(_metric, ("rouge1", "rouge2", "rougeL", "bleu"))
