"""A page of the project as its text, its tables and its attributes."""

import html.parser

VOID = {"meta", "rect", "path", "br", "line", "circle", "input"}


class Page(html.parser.HTMLParser):
    """The page's text, its tables as rows of cells, and its attributes; AssertionError for tags that do not close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.attributes, self.marked, self.shown, self.scripts = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open
        self.rows = [row for table in self.tables for row in table]
        self.text = " ".join("".join(self.shown).split())

    def handle_starttag(self, tag, attributes):
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "mark":
            self.marked.append("")
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts[-1] += data
        if {"style", "script"} & set(self.open):
            return
        self.shown.append(data)
        if {"td", "th"} & set(self.open) and "svg" not in self.open:
            self.tables[-1][-1][-1] += data
        if "mark" in self.open:
            self.marked[-1] += data
