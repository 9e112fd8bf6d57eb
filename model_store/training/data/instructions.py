"""The paper's instructions, by task and data set: table 10 for training, table 13 for judging.

Knows text alone. Tasks are written as the benchmark's cells are: T-IT is a text query for documents
of image and text. Words that the print ran together at line ends are told apart here; two of table
13's rows are set back where the data sets say they belong (the news-related image is T-I, not I-I;
OVEN's image-description pair is IT-IT). Invariant: one instruction for each pair of table 7, and
for each of table 14.
"""

from __future__ import annotations

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
"""What a task's query and its relevant documents are, in M-BEIR's words."""

TRAINING: dict[tuple[str, str], str] = {
    (
        "T-T",
        "WebQA",
    ): "Retrieve passages from Wikipedia that provide answers to the following question.",
    ("T-T", "MS MARCO"): "Given a question, retrieve relevant passages that answer the question.",
    ("I-I", "Nights"): "Find a day-to-day image that looks similar to the provided image.",
    ("I-I", "ImageNet-1K"): "Retrieve images of the same type as the one in the question.",
    (
        "T-I",
        "Fashion200k",
    ): "Based on the following fashion description, retrieve the best matching image.",
    ("T-I", "VisualNews"): "Identify the news-related image in line with the described event.",
    ("T-VD", "ViDoRe"): "Find a screenshot that relevant to the user's question.",
    ("I-T", "VisualNews"): "Find a caption for the news in the given photo.",
    ("I-T", "Fashion200k"): "Find a product description for the fashion item in the image.",
    ("I-T", "MSCOCO"): "Find an image caption describing the following everyday image.",
    ("T-IT", "WebQA"): "Find a Wikipedia image that answers this question.",
    ("T-IT", "EDIS"): "Find a news image that matches the provided caption.",
    (
        "IT-T",
        "OVEN",
    ): "Retrieve a Wikipedia paragraph that provides an answer to the given query about the image.",
    # as printed, "decription": it is what the models were trained on
    (
        "IT-T",
        "LLaVA",
    ): "Provide a specific decription of the image along with the following question.",
    (
        "IT-T",
        "ReMuQ",
    ): (
        "Retrieve a fact-based paragraph that provides an answer to the given query about the"
        " image."
    ),
    (
        "IT-I",
        "FashionIQ",
    ): "Find a fashion image that aligns with the reference image and style note.",
    (
        "IT-I",
        "CIRR",
    ): (
        "Retrieve a day-to-day image that aligns with the modification instructions of the provided"
        " image."
    ),
    (
        "IT-IT",
        "OVEN",
    ): (
        "Retrieve a Wikipedia image-description pair that provides evidence for the question of"
        " this image."
    ),
    (
        "IT-IT",
        "E-VQA",
    ): "Determine the Wikipedia image-snippet pair that matches my question about this image.",
}

_QUESTION_SCREENSHOT = "Find a screenshot that relevant to the user's question."
_MEME = "Retrieve the meme based on the given caption."
_CAPTION = "Retrieve the caption based on the given meme."

JUDGING: dict[tuple[str, str], str] = {
    ("T-T", "ArguAna"): "Given a claim, find documents that refute the claim.",
    (
        "T-T",
        "Climate-FEVER",
    ): "Given a claim about climate change, retrieve documents that support or refute the claim.",
    ("T-T", "CQADupStack"): (
        "Given a question, retrieve detailed question descriptions from Stackexchange that are"
        " duplicates to the given question."
    ),
    ("T-T", "DBPedia"): "Given a query, retrieve relevant entity descriptions from DBPedia.",
    (
        "T-T",
        "FiQA2018",
    ): "Given a financial question, retrieve user replies that best answer the question.",
    (
        "T-T",
        "HotpotQA",
    ): "Given a multi-hop question, retrieve documents that can help answer the question.",
    (
        "T-T",
        "MSMARCO",
    ): "Given a web search query, retrieve relevant passages that answer the query.",
    (
        "T-T",
        "NFCorpus",
    ): "Given a question, retrieve relevant documents that best answer the question.",
    ("T-T", "NQ"): "Given a question, retrieve Wikipedia passages that answer the question.",
    (
        "T-T",
        "Quora",
    ): (
        "Given a question, retrieve questions that are semantically equivalent to the given"
        " question."
    ),
    (
        "T-T",
        "SCIDOCS",
    ): (
        "Given a scientific paper title, retrieve paper abstracts that are cited by the given"
        " paper."
    ),
    (
        "T-T",
        "SciFact",
    ): "Given a scientific claim, retrieve documents that support or refute the claim.",
    (
        "T-T",
        "Touche2020",
    ): "Given a question, retrieve detailed and persuasive arguments that answer the question.",
    ("T-T", "TRECCOVID"): "Given a query on COVID-19, retrieve documents that answer the query.",
    ("I-I", "Nights"): "Find a day-to-day image that looks similar to the provided image.",
    ("T-I", "VisualNews"): "Identify the news-related image in line with the described event.",
    (
        "T-I",
        "Fashion200k",
    ): "Based on the following fashion description, retrieve the best matching image.",
    ("T-I", "Memotion"): _MEME,
    ("T-I", "HatefulMemes"): _MEME,
    ("T-VD", "TAT-DQA"): _QUESTION_SCREENSHOT,
    ("T-VD", "ArxivQA"): _QUESTION_SCREENSHOT,
    ("T-VD", "DocVQA"): _QUESTION_SCREENSHOT,
    ("T-VD", "MIT Tissue Interaction"): _QUESTION_SCREENSHOT,
    ("T-VD", "World Economic Reports"): _QUESTION_SCREENSHOT,
    ("I-T", "VisualNews"): "Find a caption for the news in the given photo.",
    ("I-T", "Fashion200k"): "Find a product description for the fashion item in the image.",
    ("I-T", "GLDv2"): "Retrieve the name of the landmark based on the given image.",
    ("I-T", "Memotion"): _CAPTION,
    ("I-T", "HatefulMemes"): _CAPTION,
    ("T-IT", "WebQA"): "Find a Wikipedia image that answers this question.",
    ("T-IT", "EDIS"): "Find a news image that matches the provided caption.",
    (
        "IT-T",
        "OVEN",
    ): "Retrieve a Wikipedia paragraph that provides an answer to the given query about the image.",
    (
        "IT-T",
        "INFOSEEK",
    ): "Find a paragraph from Wikipedia that answers my question about this image.",
    (
        "IT-T",
        "OKVQA",
    ): "Retrieve documents that provide an answer to the question alongside the image.",
    ("IT-T", "VizWiz"): "Retrieve the correct answer for a question about an image.",
    (
        "IT-I",
        "FashionIQ",
    ): "Find a fashion image that aligns with the reference image and style note.",
    (
        "IT-I",
        "CIRR",
    ): (
        "Retrieve a day-to-day image that aligns with the modification instructions of the provided"
        " image."
    ),
    (
        "IT-IT",
        "OVEN",
    ): (
        "Retrieve a Wikipedia image-description pair that provides evidence for the question of"
        " this image."
    ),
    (
        "IT-IT",
        "INFOSEEK",
    ): (
        "Find an image and subject description from Wikipedia that answers my question about this"
        " image."
    ),
    (
        "IT-IT",
        "E-VQA",
    ): "Obtain illustrated documents that correspond to the inquiry alongside the provided image.",
}
