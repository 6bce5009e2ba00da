"""Readers of built pages, for the tests of the site: what a page would fetch, and where its links lead."""

import re
from html.parser import HTMLParser


class Fetched(HTMLParser):
    """What a browser would fetch for a page beyond the page itself, read off its tags, styles and scripts."""

    def __init__(self, text):
        super().__init__()
        self.found, self.inside = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        for name, value in attributes:
            if name in ("src", "srcset", "data", "poster") or (name, tag) == ("href", "link"):
                if value and not value.startswith("data:"):
                    self.found.append(value)

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, text):
        if self.inside == "style":
            text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
            self.found += re.findall(r"@import[^;]*|url\((?![\"']?data:|#)[^)]*\)", text)
        if self.inside == "script":
            self.found += re.findall(r"https?://[^\"'\s]*", text)


class Links(HTMLParser):
    """`leads`, the addresses of a page's links and pictures, and `ids`, the places in it that a link can name."""

    def __init__(self, text):
        super().__init__()
        self.leads, self.ids = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value and not value.startswith("data:"):
                self.leads.append(value)
            if name == "id" or (name, tag) == ("name", "a"):
                self.ids.append(value)
