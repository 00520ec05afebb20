"""Json files nested as those of SQuAD: articles of paragraphs, each a context and its questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def squad_rows(file: Path) -> list[dict[str, Any]] | None:
    """A row for each question: `id`, `question`, `context`, `answers`; None for a file of another form.

    Raises:
        OSError, ValueError: it cannot be read, or is no json.
    """
    with file.open(encoding="utf-8-sig") as opened:
        start = opened.read(1)
        if start != "{":  # a list of rows
            return None
        opened.seek(0)
        try:
            whole = json.load(opened)
        except json.JSONDecodeError as error:
            if error.msg == "Extra data":  # json lines
                return None
            raise
    articles = whole.get("data")
    if not isinstance(articles, list) or not all(isinstance(a, dict) and "paragraphs" in a for a in articles):
        return None
    try:
        return [
            {
                "id": str(asked.get("id", "")),
                "question": asked["question"],
                "context": paragraph["context"],
                "answers": [{"text": a["text"], "answer_start": a["answer_start"]} for a in asked.get("answers", [])],
            }
            for article in articles
            for paragraph in article["paragraphs"]
            for asked in paragraph["qas"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"a paragraph or question of it lacks {error}") from None
