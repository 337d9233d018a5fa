#!/usr/bin/env python3
"""Gives Doxygen a file of ours in the form that it knows: comments before a declaration, or behind it, document it."""
import re
import sys

_ALONE = re.compile(r"^(\s*)(//|/\*)(?![/*])( |$)")
_BEHIND = re.compile(r"^(\s*[^/\s].*?\S)(\s+)(//|/\*)( .*)$")
_SECTION = re.compile(r"^\s*(//|/\*) -{3,}")
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:)[^)]*\)")  # to a page that is not part of the reference
_MARKED = {"//": "///", "/*": "/**"}
_MARKED_BEHIND = {"//": "///<", "/*": "/**<"}


def header(lines):
    """The lines of a header. Its first comment is about the file."""
    about_file, behind = True, False
    for line in lines:
        alone = None if _SECTION.match(line) else _ALONE.match(line)
        if alone:
            marks = _MARKED_BEHIND if behind else _MARKED
            if about_file:
                # On a line that begins the comment, so that the rest of it follows.
                yield f"{marks[alone[2]]} @file" + ("" if alone[2] == "//" else "\n *")
                line = line if alone[2] == "//" else line.replace("/*", " *", 1)
                about_file = False
                yield line.replace("//", "///", 1) if alone[2] == "//" else line
                continue
            yield _ALONE.sub(lambda found: found[1] + marks[found[2]] + found[3], line, count=1)
            continue
        found = _BEHIND.match(line)
        behind = found is not None and found[3] == "//"
        yield f"{found[1]}{found[2]}{_MARKED_BEHIND[found[3]]}{found[4]}" if found else line


def page(text):
    return _LINK.sub(r"\1", text)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        content = file.read()
    sys.stdout.write(page(content) if sys.argv[1].endswith(".md") else "\n".join(header(content.split("\n"))))
