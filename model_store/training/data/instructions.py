"""The paper's instructions for training, by task and data set (table 10).

Does not depend on rows. Tasks are written as the benchmark's cells: T-IT is a text query for
documents of image and text. Words that the print joined at line ends are separated here. Invariant:
there is one instruction for each pair of table 7.
"""

from __future__ import annotations

from collections.abc import Mapping

MODALITIES: dict[str, tuple[str, str]] = {
    "T-T": ("text", "text"),
    "I-I": ("image", "image"),
    "T-I": ("text", "image"),
    "T-VD": ("text", "image"),
    "I-T": ("image", "text"),
    "T-IT": ("text", "image,text"),
    "IT-T": ("image,text", "text"),
    "IT-I": ("image,text", "image"),
    "IT-IT": ("image,text", "image,text"),
}
"""The modalities of a task's query and of its relevant documents, in M-BEIR's words."""


def _by_part(by_task: Mapping[str, Mapping[str, str]]) -> dict[tuple[str, str], str]:
    """Instructions by (task, data set), such as ("T-IT", "WebQA")."""
    parts: dict[tuple[str, str], str] = {}
    for task, by_dataset in by_task.items():
        for dataset, instruction in by_dataset.items():
            parts[task, dataset] = instruction
    return parts


TRAINING = _by_part(
    {
        "T-T": {
            "WebQA": (
                "Retrieve passages from Wikipedia that provide answers to the following question."
            ),
            "MS MARCO": "Given a question, retrieve relevant passages that answer the question.",
        },
        "I-I": {
            "Nights": "Find a day-to-day image that looks similar to the provided image.",
            "ImageNet-1K": "Retrieve images of the same type as the one in the question.",
        },
        "T-I": {
            "Fashion200k": (
                "Based on the following fashion description, retrieve the best matching image."
            ),
            "VisualNews": "Identify the news-related image in line with the described event.",
        },
        "T-VD": {
            "ViDoRe": "Find a screenshot that relevant to the user's question.",
        },
        "I-T": {
            "VisualNews": "Find a caption for the news in the given photo.",
            "Fashion200k": "Find a product description for the fashion item in the image.",
            "MSCOCO": "Find an image caption describing the following everyday image.",
        },
        "T-IT": {
            "WebQA": "Find a Wikipedia image that answers this question.",
            "EDIS": "Find a news image that matches the provided caption.",
        },
        "IT-T": {
            "OVEN": (
                "Retrieve a Wikipedia paragraph that provides an answer to the given query "
                "about the image."
            ),
            # As printed, "decription": the models were trained on this.
            "LLaVA": (
                "Provide a specific decription of the image along with the following question."
            ),
            "ReMuQ": (
                "Retrieve a fact-based paragraph that provides an answer to the given query "
                "about the image."
            ),
        },
        "IT-I": {
            "FashionIQ": (
                "Find a fashion image that aligns with the reference image and style note."
            ),
            "CIRR": (
                "Retrieve a day-to-day image that aligns with the modification instructions of "
                "the provided image."
            ),
        },
        "IT-IT": {
            "OVEN": (
                "Retrieve a Wikipedia image-description pair that provides evidence for the "
                "question of this image."
            ),
            "E-VQA": (
                "Determine the Wikipedia image-snippet pair that matches my question about this "
                "image."
            ),
        },
    }
)
"""Table 10."""
