"""Helpers of `test_documents`: what a Markdown file holds."""

import re


def blocks(text, language):
    """The code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def links(text):
    """Targets of links and pictures in the same repository, without anchors of other files."""
    return re.findall(r"\]\((?!https?:)([^)\s]+)\)", text) + re.findall(r'<img src="(?!https?:)([^"]+)"', text)


def anchors(text):
    """The anchors that GitHub makes of the headings."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def sentences(text):
    """Sentences of the prose: no code blocks, tables, headings or pictures. Inline code and links count as they read.

    A sentence ends with a full stop, a question mark or an exclamation mark before white space, or with its paragraph
    or list item. A colon or a semicolon does not end it.
    """
    text = re.sub(r"^```.*?^```", "\n", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)|<[^>]+>", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"^(\||#).*$", "\n", text, flags=re.MULTILINE)
    text = re.sub(r"^\s*([-*]|\d+\.) ", "\n\n", text, flags=re.MULTILINE)
    paragraphs = re.split(r"\n\s*\n", text)
    found = [part for each in paragraphs for part in re.split(r"(?<=[.!?])[*\"”)]*\s+", each)]
    counted = [[word for word in part.split() if re.search(r"\w", word)] for part in found]
    return [" ".join(words) for words in counted if words]
