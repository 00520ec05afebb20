"""No secret in what is written or printed: what counts as one, and where texts pass on their way out."""

from __future__ import annotations

import html
import json
import logging
import netrc
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

REDACTED = "<redacted>"

_WORDS = r"token|secret|passw(?:or)?d|passphrase|credentials?|api_?key|access_key(?:_id)?|private_key|secret_key"
_SECRET = re.compile(rf"(?:^|_)(?:{_WORDS}|pat)$|(?:secret|passw(?:or)?d)(?!.*_(?:file|path|dir|name)$)")
# Of tokenizers: no secrets, and numbers and words of ours.
_NO_SECRET = re.compile(r"(?:bos|eos|pad|cls|sep|unk|mask|image|audio|video|decoder_start|per)_token$")
_SHAPES = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|wandb_v\d_\w{20,}|local-[0-9a-f]{40}|sk-[\w-]{20,}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{6,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_IN_URL = re.compile(r"(?<=://)(?P<user>[^\s/@:'\"<>]*):[^\s/'\"<>]+(?=@)|(?<=://)[^\s/@:'\"<>]{16,}(?=@)")
# A word of plain English may stand there as well; it has no digit, and no capital behind a small letter.
_BEARER = re.compile(r"\b(?i:(bearer|basic))(\s+)(?=[\w.~+/-]*(?:\d|[a-z][A-Z]|=))[\w.~+/-]{8,}=*")
_VALUE = r"(?P<value>\$\{[^}\n]*\}|\"[^\"\n]*\"|'[^'\n]*'|[^\s;&)\]}\"'][^\s;&)\]}\"']*)"
_KEY = rf"(?P<key>[\w.@/-]*(?:{_WORDS}|pat)\w*)"
# `api_key=...` anywhere; with a colon as in JSON, or on a line of YAML: `no token: give one` is plain English.
_NAMED = re.compile(rf"(?i)(?<![\w.]){_KEY}(?P<between>\\?[\"']\s*:\s*|\s?=\s?){_VALUE}")
_IN_YAML = re.compile(rf"(?im)^[ \t-]*{_KEY}(?P<between>:[ ]+){_VALUE}(?=\s*$)")
# In a typed `{user: me, password: ...}`, which may lack its end; looked for behind the first brace alone.
_IN_BRACES = re.compile(
    rf"(?i)(?<=[{{,])\s*{_KEY}(?P<between>\s*:\s*)(?P<value>\"[^\"\n]*\"|'[^'\n]*'|\$\{{[^}}\n]*\}}|[^\s,{{}}\[\]\"']+)"
)
_REFERENCE = re.compile(r"\$\{[\w.:]+\}")
_SHORTEST = 8
# As values of secret keys that this process has met: whoever got one may say it in a message.
_met: set[str] = set()


@lru_cache(maxsize=4096)
def secret_name(name: str) -> bool:
    """Whether a key or variable of this name holds a secret: `WANDB_API_KEY`, `tracker.password`."""
    leaf = re.split(r"[.@/]", name)[-1]
    leaf = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", leaf).replace("-", "_").lower()
    return bool(_SECRET.search(leaf)) and not _NO_SECRET.search(leaf)


def redacted(value: Any) -> Any:
    """A text, or all texts in plain values, without secrets; whatever a secret key holds is one."""
    if isinstance(value, str):
        return _line(value)
    if isinstance(value, Mapping):
        return {redacted(key): _held(key, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(item) for item in value]
    return value


def _held(key: Any, value: Any) -> Any:
    if not secret_name(str(key)) or isinstance(value, Mapping) or value is None or isinstance(value, bool):
        return redacted(value)
    return value if isinstance(value, str) and _REFERENCE.fullmatch(value) else REDACTED


def _line(text: str) -> str:
    text = without_known(text)
    text = _IN_URL.sub(lambda found: f"{found['user']}:{REDACTED}" if found["user"] else REDACTED, text)
    text = _BEARER.sub(rf"\1\2{REDACTED}", text)
    for pattern in (_NAMED, _IN_YAML):
        text = pattern.sub(_value_hidden, text)
    before, brace, braced = text.partition("{")
    return before + _IN_BRACES.sub(_value_hidden, brace + braced)


def _value_hidden(found: re.Match[str]) -> str:
    value = found["value"]
    if not secret_name(found["key"]) or _REFERENCE.fullmatch(value) or value in ("null", "None", "...", REDACTED):
        return found[0]
    quotes = value[0] if value[0] in "\"'" else ""
    before = found[0].removesuffix(value)
    return f"{before}{quotes}{REDACTED}{quotes}"


def without_known(text: str) -> str:
    """A text of any kind, code too, without known secrets and what has the shape of one."""
    secrets = frozenset(_met | _of_environment() | _of_files(*_files()))
    if secrets:
        text = _pattern(secrets).sub(REDACTED, text)
    return _SHAPES.sub(REDACTED, text)


def learn(node: Any) -> None:
    """Remember what secret keys hold, in plain values or in words such as `tracker.api_key=...`."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if secret_name(str(key)):
                _met.update(_worth(_leaves(value)))
            learn(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            learn(value)
    elif isinstance(node, str):
        pairs = _IN_BRACES.finditer("".join(node.partition("{")[1:]))
        _met.update(_worth(pair["value"].strip("\"'") for pair in pairs if secret_name(pair["key"])))
        key, equals, value = node.partition("=")
        if equals and re.fullmatch(r"[+~\w.@/-]+", key) and secret_name(key):
            _met.update(_worth(_listed(value)))


def _listed(value: str) -> list[str]:
    """A typed value and the items that it lists; other words behind it, as in Hydra's `override_dirname`, are none."""
    first, *rest = re.split(r"[,\[\]{}\"']", value)
    words = [item for item in rest if re.match(r"[+~\w.@/-]+=[^=]", item)]
    return [first, *(item for item in rest if item not in words), *([] if words else [value])]


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield value


def _worth(values: Iterable[str]) -> set[str]:
    """Those that are no word, number or reference, which a text may hold for other reasons."""
    stripped = (value.strip() for value in values)
    return {value for value in stripped if len(value) >= _SHORTEST and not _common(value)}


def _common(value: str) -> bool:
    if REDACTED in value or "${" in value:
        return True
    return (value.isalpha() and len(value) < 2 * _SHORTEST) or bool(re.fullmatch(r"[-+.\deE]+", value))


def _of_environment() -> set[str]:
    return _worth(value for name, value in os.environ.items() if secret_name(name))


def _files() -> tuple[str, str]:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return os.environ.get("HF_TOKEN_PATH") or f"{home}/token", os.environ.get("NETRC") or "~/.netrc"


@lru_cache(maxsize=8)
def _of_files(token: str, hosts: str) -> frozenset[str]:
    """The token that `hf auth login` keeps, and the passwords of netrc, where `wandb login` keeps its key."""
    found: list[str] = []
    with suppress(OSError, UnicodeError, RuntimeError):
        found.append(Path(token).expanduser().read_text(encoding="utf-8"))
    with suppress(OSError, UnicodeError, RuntimeError, netrc.NetrcParseError):
        found += [password or "" for _, _, password in netrc.netrc(Path(hosts).expanduser()).hosts.values()]
    return frozenset(_worth(found))


@lru_cache(maxsize=8)
def _pattern(secrets: frozenset[str]) -> re.Pattern[str]:
    spellings = {spelling for secret in secrets for spelling in _spellings(secret)}
    # The longest first: one may begin with another. White space may be folded on the way.
    words = [r"\s+".join(map(re.escape, spelling.split())) for spelling in sorted(spellings, key=len, reverse=True)]
    return re.compile("|".join(words))


def _spellings(secret: str) -> set[str]:
    """As it stands in JSON, YAML, HTML, an address and Python."""
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        secret.replace("'", "''"),
        html.escape(secret),
        quote(secret, safe=""),
        repr(secret)[1:-1],
    }


class _Record(logging.LogRecord):
    """A record of any logger, for any handler, whose message and traceback hold no secret."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if self.exc_info and self.exc_info[0] is not None:
            # A formatter takes what is there already.
            self.exc_text = _line("".join(traceback.format_exception(*self.exc_info)).rstrip("\n"))
        if self.stack_info:
            self.stack_info = _line(self.stack_info)

    def getMessage(self) -> str:  # noqa: N802 logging's own name
        return _line(super().getMessage())


def guard_logs() -> None:
    """From here on no logger of this process says a secret. Safe to call again."""
    logging.setLogRecordFactory(_Record)


class _Stream:
    """A stream to a terminal that says no secret; in all else the stream itself."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(_line(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def guarded_terminal() -> Iterator[None]:
    """Within it nothing that Python prints holds a secret, whoever prints it: Hydra's `--cfg job` too."""
    kept = sys.stdout, sys.stderr
    learn(sys.argv[1:])
    guard_logs()
    sys.stdout, sys.stderr = (stream if isinstance(stream, _Stream) else _Stream(stream) for stream in kept)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = kept
