"""The paper's instructions, by task and data set: table 10 for training, table 13 for evaluation.

Does not depend on rows. Tasks are written as the benchmark's cells: T-IT is a text query for
documents of image and text. Words that the print joined at line ends are separated here. Two rows
of table 13 stand at the tasks of their data sets: the news-related image at T-I, not I-I, and
OVEN's image-description pair at IT-IT. Invariant: there is one instruction for each pair of table
7, and one for each of table 14.
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

_QUESTION_SCREENSHOT = "Find a screenshot that relevant to the user's question."
_MEME = "Retrieve the meme based on the given caption."
_CAPTION = "Retrieve the caption based on the given meme."

EVALUATION = _by_part(
    {
        "T-T": {
            "ArguAna": "Given a claim, find documents that refute the claim.",
            "Climate-FEVER": (
                "Given a claim about climate change, retrieve documents that support or refute "
                "the claim."
            ),
            "CQADupStack": (
                "Given a question, retrieve detailed question descriptions from Stackexchange "
                "that are duplicates to the given question."
            ),
            "DBPedia": "Given a query, retrieve relevant entity descriptions from DBPedia.",
            "FiQA2018": (
                "Given a financial question, retrieve user replies that best answer the question."
            ),
            "HotpotQA": (
                "Given a multi-hop question, retrieve documents that can help answer the question."
            ),
            "MSMARCO": (
                "Given a web search query, retrieve relevant passages that answer the query."
            ),
            "NFCorpus": (
                "Given a question, retrieve relevant documents that best answer the question."
            ),
            "NQ": "Given a question, retrieve Wikipedia passages that answer the question.",
            "Quora": (
                "Given a question, retrieve questions that are semantically equivalent to the "
                "given question."
            ),
            "SCIDOCS": (
                "Given a scientific paper title, retrieve paper abstracts that are cited by the "
                "given paper."
            ),
            "SciFact": (
                "Given a scientific claim, retrieve documents that support or refute the claim."
            ),
            "Touche2020": (
                "Given a question, retrieve detailed and persuasive arguments that answer the "
                "question."
            ),
            "TRECCOVID": "Given a query on COVID-19, retrieve documents that answer the query.",
        },
        "I-I": {
            "Nights": "Find a day-to-day image that looks similar to the provided image.",
        },
        "T-I": {
            "VisualNews": "Identify the news-related image in line with the described event.",
            "Fashion200k": (
                "Based on the following fashion description, retrieve the best matching image."
            ),
            "Memotion": _MEME,
            "HatefulMemes": _MEME,
        },
        "T-VD": {
            "TAT-DQA": _QUESTION_SCREENSHOT,
            "ArxivQA": _QUESTION_SCREENSHOT,
            "DocVQA": _QUESTION_SCREENSHOT,
            "MIT Tissue Interaction": _QUESTION_SCREENSHOT,
            "World Economic Reports": _QUESTION_SCREENSHOT,
        },
        "I-T": {
            "VisualNews": "Find a caption for the news in the given photo.",
            "Fashion200k": "Find a product description for the fashion item in the image.",
            "GLDv2": "Retrieve the name of the landmark based on the given image.",
            "Memotion": _CAPTION,
            "HatefulMemes": _CAPTION,
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
            "INFOSEEK": (
                "Find a paragraph from Wikipedia that answers my question about this image."
            ),
            "OKVQA": (
                "Retrieve documents that provide an answer to the question alongside the image."
            ),
            "VizWiz": "Retrieve the correct answer for a question about an image.",
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
            "INFOSEEK": (
                "Find an image and subject description from Wikipedia that answers my question "
                "about this image."
            ),
            "E-VQA": (
                "Obtain illustrated documents that correspond to the inquiry alongside the "
                "provided image."
            ),
        },
    }
)
"""Table 13."""
