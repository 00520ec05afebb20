"""A parser of command lines whose errors are one line with a cure. Needs only the standard library."""

from __future__ import annotations

import argparse
import difflib
import re
from typing import Any, NoReturn

from hydraprune.errors import single_line


class OneLineParser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` without the usage text before an error, and with key=value words anywhere."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The same; words after an option, which argparse does not add to a list before it, go to `key=value`."""
        namespace, rest = super().parse_known_args(args, namespace)
        for action in self._actions:
            if action.metavar == "key=value" and action.nargs == "*":  # `parse_intermixed_args` suppresses it
                words = [word for word in rest if "=" in word and not word.startswith("-")]
                setattr(namespace, action.dest, [*getattr(namespace, action.dest), *words])
                rest = [word for word in rest if word not in words]
        return namespace, rest

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 after one line."""
        command = self.prog.partition(" ")[2]
        where = f"{command}: " if command else ""
        self.exit(2, f"hydraprune: error: {where}{single_line(message)}; {self._cure(message)}\n")

    def _cure(self, message: str) -> str:
        help_text = f"see {self.prog} --help"
        if wrong := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            word, choices = wrong.group(1), re.findall(r"[\w-]+", wrong.group(2))
            if "=" in word:
                return f"did you mean {self.prog} train {word}?"
            near = difflib.get_close_matches(word, choices, n=1)
            return f"did you mean {self.prog} {near[0]}?" if near else help_text
        if "unrecognized arguments: --" in message and any(action.metavar == "key=value" for action in self._actions):
            return f"keys are typed without dashes, as key=value; {help_text}"
        return help_text
