"""What stands in a Markdown document: code by language, links, anchors, and commands of `sddpm`."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("benchmarks", "docs", "examples", "src", "tests")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [code for name, code in FENCE.findall(text) if name == language]


def links(text: str) -> list[str]:
    """Targets of links and pictures within the repository."""
    found = re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", FENCE.sub("", text))
    found += re.findall(r"<(?:img|a)[^>]* (?:src|href)=\"([^\"]+)\"", FENCE.sub("", text))
    return [link for link in found if "://" not in link and not link.startswith("mailto:")]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to headings: lower case, without punctuation, hyphens for blanks."""
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in plain}


def commands(text: str) -> list[list[str]]:
    """Commands of `sddpm` in blocks of shell, indented blocks and code within lines, as words after "sddpm"."""
    shell = "\n".join([*blocks(text, "sh"), *re.findall(r"^ {4}(.*)$", FENCE.sub("", text), re.MULTILINE)])
    lines = shell.replace("\\\n", " ").splitlines()
    lines += [code.replace("\n", " ") for code in re.findall(r"`(sddpm\s[^`]+)`", FENCE.sub("", text))]
    lines = [re.sub(r"(^|\s)#\s.*$", "", line).rstrip() for line in lines]
    found = (re.search(r"(?:^|[\s(])sddpm (\w[\w-]* .*|\w[\w-]*)$", line) for line in lines)
    return [shlex.split(re.split(r"\s(?:&|&&|\||>|2>|;)(?:\s|$)", match[1])[0]) for match in found if match]
