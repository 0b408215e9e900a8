"""The commands of a piece of shell, well enough to see whether what they name is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Final

_SEPARATORS: Final = ";|&()\n"
_HEREDOC: Final = re.compile(r"<<-?[ ]*(['\"]?)(\w+)\1([^\n]*)\n.*?^\s*\2$", re.DOTALL | re.M)
_SUBSTITUTION: Final = re.compile(r"\$\(([^()]*)\)")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
#: Words before a command that change how it runs, not what.
_PREFIXES: Final = {"!", "do", "else", "exec", "if", "sudo", "then", "time", "until", "while"}


def commands_of(shell: str) -> Iterator[list[str]]:
    """Yield the words of each command, without assignments and redirections before them.

    Commands in a quoted ``"$(...)"`` come last.
    """
    text = _HEREDOC.sub(lambda found: found[3], shell.replace("\\\n", " "))
    text = re.sub(r"(^|\s)#.*$", r"\1", text, flags=re.MULTILINE)
    lexer = shlex.shlex(text, posix=True, punctuation_chars=f"{_SEPARATORS}<>")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    tokens = list(lexer)  # an unquoted $(...) is a command of its own here, by its brackets
    words: list[str] = []
    for token in [*tokens, "\n"]:
        if token and set(token) <= set(_SEPARATORS):
            yield from _command(words)
            words = []
        else:
            words.append(token)
    for quoted in tokens:
        for inner in _SUBSTITUTION.findall(quoted):
            yield from commands_of(inner)


def _command(words: list[str]) -> Iterator[list[str]]:
    while words and (words[0] in _PREFIXES or _ASSIGNMENT.fullmatch(words[0])):
        words = words[1:]
    if words:
        yield words
