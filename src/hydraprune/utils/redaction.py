"""Redaction of secrets in everything that is written or printed. Needs only the standard library.

A text is searched for known secrets (`register_secrets`, variables and files with credentials), for tokens with a
well-known format, and for values beside the name of a secret, such as `api_key=...`.
"""

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

from hydraprune.utils.hub_home import token_file
from hydraprune.utils.names import snake

REDACTED = "<redacted>"

# Names of secrets, in snake case, by their last words.
_SECRET_WORDS = (
    r"token|secrets?|passw(?:or)?ds?|passphrase|passcode|credentials?|creds|api_?keys?|access_key_id|pat|auth|authorization"
    r"|bearer|cookies?|webhooks?|(?:web)?hook_ur[il]|dsn|connection_string|conn_str|sas|sig|signature|session_id|sessionid"
    r"|t?otp|jwt|sshpass"
)
# Keys, and short words for passwords: secrets of somebody or something that the word before names, as in OPENAI_KEY and
# DB_PASS. Keys of tables and caches, passes of a training, and PWD, the current folder, are none.
_OWNED = (
    r"(?<!public)(?<!primary)(?<!foreign)(?<!sort)(?<!partition)(?<!cache)(?<!group)(?<!dict)(?<!config)(?<!query)"
    r"(?<!query_and)_key(?:_(?:json|pem|b64|base64))?"
    r"|(?<!forward)(?<!backward)(?<!single)(?<!first)(?<!second)(?<!per)_pass|(?<!old)_pwd"
)
# Wherever they stand, two words count, unless the value is the name of a place.
_SECRET_NAME = re.compile(
    rf"(?:^|_)(?:{_SECRET_WORDS})$|(?:{_OWNED})$|(?:secret|passw(?:or)?d)(?!.*_(?:file|path|dir|name)$)"
)
# Special tokens of tokenizers.
_TOKENIZER_NAME = re.compile(r"(?:bos|eos|pad|cls|sep|unk|mask|image|audio|video|decoder_start|per)_token$")
# Tokens with a format of their own: Hugging Face, GitHub, GitLab, Slack, AWS, W&B, OpenAI, Google, Stripe, npm, PyPI,
# SendGrid, Replicate, Databricks, DigitalOcean, JWT, PEM.
_TOKEN_FORMATS = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}"
    r"|xapp-[\w-]{10,}|gl(?:dt|rt|ptt|cbt|ft|agent|soat)-[\w-]{16,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|wandb_v\d_\w{20,}|local-[0-9a-f]{40}|sk-[\w-]{20,}|(?:sk|rk)_(?:live|test)_\w{16,}"
    r"|AIza[\w-]{35}|ya29\.[\w-]{20,}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{20,}|SG\.[\w-]{16,}\.[\w-]{16,}|r8_\w{30,}"
    r"|dapi[0-9a-f]{32}|do[opr]_v1_[0-9a-f]{40,}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{6,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
# `user:password@` and a long `token@` in a URL.
_URL_PASSWORD = re.compile(r"(?<=://)(?P<user>[^\s/@:'\"<>]*):[^\s/'\"<>]+(?=@)|(?<=://)[^\s/@:'\"<>]{16,}(?=@)")
# Who knows the address of a webhook may post there: Slack, Discord, Teams, Google Chat.
_WEBHOOK = re.compile(
    r"(?<=://)(hooks\.slack\.com/\w+/|(?:\w+\.)?discord(?:app)?\.com/api/webhooks/|[\w.-]*webhook\.office\.com/|chat\.googleapis"
    r"\.com/v1/spaces/)[^\s'\"<>]+"
)
# The header of a request or an answer.
_COOKIE = re.compile(r"(?i)\b((?:set-)?cookie:[ \t]*)[^\r\n'\"]+")
# `Bearer x`; not `bearer certificates`: a token has a digit, or a capital after a small letter.
_BEARER = re.compile(r"\b(?i:(bearer|basic))(\s+)(?=[\w.~+/-]*(?:\d|[a-z][A-Z]|=))[\w.~+/-]{8,}=*")
_INTERPOLATION = re.compile(r"\$\{[\w.:]+\}")
# A name, from its first character on: every name is looked at once, however long a text is.
_KEY = r"(?<![\w.@/-])(?P<key>[\w.@/-]+)"
_VALUE = r"(?:\$\{[^}\n]*\}|\"[^\"\n]*\"|'[^'\n]*'|[^\s;&)\]}\"'][^\s;&)\]}\"']*)"
# (name and what separates it from its value, value): `api_key=x` anywhere; with a colon only in JSON or alone on a line
# of YAML, since `no token: give one` is plain English.
_ASSIGNED = (
    (re.compile(rf"{_KEY}(?:\\?[\"']\s*:\s*|\s?=\s?)"), re.compile(_VALUE)),
    (re.compile(r"(?m)^[ \t-]*(?P<key>[\w.@/][\w.@/-]*):[ ]+"), re.compile(rf"(?m){_VALUE}(?=\s*$)")),
)
# `{user: me, password: x}` as typed for Hydra, perhaps without its end; searched for only after a brace.
_ASSIGNED_IN_BRACES = (
    re.compile(r"(?<=[{,])\s*(?P<key>[\w.@/-]+)\s*:\s*"),
    re.compile(r"\"[^\"\n]*\"|'[^'\n]*'|\$\{[^}\n]*\}|[^\s,{}\[\]\"']+"),
)
# Shorter values are not searched for: they occur in other words.
_SHORTEST = 8
_registered: set[str] = set()


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether a key or variable of this name holds a secret: `WANDB_API_KEY`, `tracker.password`."""
    leaf = re.split(r"[.@/]", name)[-1]
    leaf = snake(leaf).replace("-", "_")
    return bool(_SECRET_NAME.search(leaf)) and not _TOKENIZER_NAME.search(leaf)


def redacted(value: Any) -> Any:
    """A text, or all texts in nested dicts and lists, without secrets; the values of secret keys are replaced."""
    if isinstance(value, str):
        return _redact(value)
    if isinstance(value, Mapping):
        return {redacted(key): _redacted_item(key, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(item) for item in value]
    return value


def _redacted_item(key: Any, value: Any) -> Any:
    if not is_secret_name(str(key)) or isinstance(value, Mapping) or value is None or isinstance(value, bool):
        return redacted(value)
    return value if isinstance(value, str) and _INTERPOLATION.fullmatch(value) else REDACTED


def _redact(text: str) -> str:
    text = redact_known(text)
    text = _URL_PASSWORD.sub(lambda found: f"{found['user']}:{REDACTED}" if found["user"] else REDACTED, text)
    text = _WEBHOOK.sub(rf"\1{REDACTED}", text)
    text = _COOKIE.sub(rf"\1{REDACTED}", text)
    text = _BEARER.sub(rf"\1\2{REDACTED}", text)
    for named, value in _ASSIGNED:
        text = _without_values(text, named, value)
    before, brace, braced = text.partition("{")
    return before + _without_values(brace + braced, *_ASSIGNED_IN_BRACES)


def _secret_values(text: str, named: re.Pattern[str], value: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """The values that a text gives to names of secrets."""
    end = 0
    for found in named.finditer(text):
        if found.start() >= end and is_secret_name(found["key"]) and (given := value.match(text, found.end())):
            end = given.end()
            yield given


def _without_values(text: str, named: re.Pattern[str], value: re.Pattern[str]) -> str:
    parts, end = [], 0
    for given in _secret_values(text, named, value):
        if _INTERPOLATION.fullmatch(given[0]) or given[0] in ("null", "None", "...", REDACTED):
            continue
        quotes = given[0][0] if given[0][0] in "\"'" else ""
        parts += [text[end : given.start()], f"{quotes}{REDACTED}{quotes}"]
        end = given.end()
    return "".join([*parts, text[end:]])


def redact_known(text: str) -> str:
    """A text of any kind, code too, without known secrets and tokens with a well-known format."""
    if secrets := frozenset(_registered | _from_environment() | _from_files(token_file(), _netrc_file())):
        text = _search_pattern(secrets).sub(REDACTED, text)
    return _TOKEN_FORMATS.sub(REDACTED, text)


def register_secrets(node: Any) -> None:
    """Remember the values of secret keys, so that they are redacted wherever they appear.

    Args:
        node: nested dicts and lists, or overrides such as `tracker.api_key=...`.
    """
    if isinstance(node, Mapping):
        for key, value in node.items():
            if is_secret_name(str(key)):
                _registered.update(_worth_hiding(_texts(value)))
            register_secrets(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            register_secrets(value)
    elif isinstance(node, str):
        found = _secret_values("".join(node.partition("{")[1:]), *_ASSIGNED_IN_BRACES)
        _registered.update(_worth_hiding(value[0].strip("\"'") for value in found))
        key, equals, value = node.partition("=")
        if equals and re.fullmatch(r"[+~\w.@/-]+", key) and is_secret_name(key):
            _registered.update(_worth_hiding(_override_items(value)))


def forget_secrets() -> None:
    """Forget what `register_secrets` was given in this process."""
    _registered.clear()


def _override_items(value: str) -> list[str]:
    """The value of an override and the items that it lists, without the overrides joined to it by Hydra's commas."""
    first, *rest = re.split(r"[,\[\]{}\"']", value)
    joined = [item for item in rest if re.match(r"[+~\w.@/-]+=[^=]", item)]
    return [first, *(item for item in rest if item not in joined), *([] if joined else [value])]


def _texts(value: Any) -> Iterator[str]:
    """All texts in nested dicts and lists."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


def _worth_hiding(values: Iterable[str]) -> set[str]:
    """Those that are not a word, number or interpolation, which a text may contain for other reasons."""
    stripped = (value.strip() for value in values)
    return {value for value in stripped if len(value) >= _SHORTEST and not _is_common(value)}


def _is_common(value: str) -> bool:
    if REDACTED in value or "${" in value:
        return True
    return (value.isalpha() and len(value) < 2 * _SHORTEST) or bool(re.fullmatch(r"[-+.\deE]+", value))


def _from_environment() -> set[str]:
    return _worth_hiding(value for name, value in os.environ.items() if is_secret_name(name))


def _netrc_file() -> Path:
    return Path(os.path.expanduser(os.environ.get("NETRC") or "~/.netrc"))


@lru_cache(maxsize=8)
def _from_files(token: Path, hosts: Path) -> frozenset[str]:
    """The token that `hf auth login` stores, and the passwords in netrc, where `wandb login` stores its key."""
    found: list[str] = []
    with suppress(OSError, UnicodeError):
        found.append(token.read_text(encoding="utf-8"))
    with suppress(OSError, UnicodeError, netrc.NetrcParseError):
        found += [password or "" for _, _, password in netrc.netrc(hosts).hosts.values()]
    return frozenset(_worth_hiding(found))


@lru_cache(maxsize=8)
def _search_pattern(secrets: frozenset[str]) -> re.Pattern[str]:
    spellings = {spelling for secret in secrets for spelling in _spellings(secret)}
    # The longest first, since one may begin with another; white space may have been folded.
    words = [r"\s+".join(map(re.escape, spelling.split())) for spelling in sorted(spellings, key=len, reverse=True)]
    return re.compile("|".join(words))


def _spellings(secret: str) -> set[str]:
    """A secret as written in JSON, YAML, HTML, a URL and Python."""
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        secret.replace("'", "''"),
        html.escape(secret),
        quote(secret, safe=""),
        repr(secret)[1:-1],
    }


class _RedactedRecord(logging.LogRecord):
    """A log record without secrets in its message and traceback, for any logger and handler."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if self.exc_info and self.exc_info[0] is not None:
            # Formatters use this text instead of formatting the traceback again.
            self.exc_text = _redact("".join(traceback.format_exception(*self.exc_info)).rstrip("\n"))
        if self.stack_info:
            self.stack_info = _redact(self.stack_info)

    def getMessage(self) -> str:  # noqa: N802 logging's own name
        return _redact(super().getMessage())


def guard_logs() -> None:
    """Redact all log records of this process from now on. Safe to call again."""
    logging.setLogRecordFactory(_RedactedRecord)


class _RedactedStream:
    """A text stream that redacts what is written; everything else is passed to the stream itself."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(_redact(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def guarded_terminal() -> Iterator[None]:
    """Redact everything that this process prints, logs or prints through Hydra (`--cfg job`) within the context."""
    kept = sys.stdout, sys.stderr
    register_secrets(sys.argv[1:])
    guard_logs()
    sys.stdout, sys.stderr = (
        stream if isinstance(stream, _RedactedStream) else _RedactedStream(stream) for stream in kept
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = kept
