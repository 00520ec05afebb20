"""Redaction: names, spellings and formats of secrets, and texts that must not change."""

from __future__ import annotations

import html
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hydraprune.utils.redaction import (
    forget_secrets,
    guard_logs,
    is_secret_name,
    redact_known,
    redacted,
    register_secrets,
)

SECRET = "a 'secret'/with <marks> & \"spaces\" 42"


@pytest.fixture(autouse=True)
def no_registered_secrets() -> Iterator[None]:
    forget_secrets()
    yield
    forget_secrets()


@pytest.mark.parametrize(
    "name",
    [
        *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
        *("GITHUB_PAT", "MY_SECRET", "DB_PASSWORD", "PASSWORD_OF_DB", "tracker.api_key", "apiKey", "api-key", "token"),
        *("a.b.password", "wandb.accessToken", "passwd", "credentials", "ssh_private_key"),
    ],
)
def test_secret_names(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("TOKENIZERS_PARALLELISM", "pad_token", "cls_token", "max_tokens", "token_bytes", "PATH", "path", "keys"),
        *("HF_TOKEN_PATH", "PASSWORD_FILE", "patience", "pattern", "keep", "compatible", "monkey", "task.name"),
    ],
)
def test_names_that_are_not_secret(name: str) -> None:
    assert not is_secret_name(name)


# Owners and kinds of secrets; every one of the first with every one of the second names one.
OWNERS = (
    "OPENAI",
    "KAGGLE",
    "AZURE_STORAGE",
    "db",
    "MYSQL",
    "smtp",
    "wandb",
    "my_company2",
    "SERVICE_ACCOUNT",
    "Slack",
)
KINDS = (
    *(
        "KEY",
        "PASS",
        "PWD",
        "TOKEN",
        "PAT",
        "WEBHOOK",
        "WEBHOOK_URL",
        "COOKIE",
        "COOKIES",
        "AUTH",
        "DSN",
        "SAS",
        "CREDS",
    ),
    *("ENCRYPTION_KEY", "SIGNING_KEY", "ACCOUNT_KEY", "KEY_JSON", "CONNECTION_STRING", "SESSION_ID", "PASSCODE", "JWT"),
)


@given(st.sampled_from(OWNERS), st.sampled_from(KINDS), st.sampled_from(["_", "-", ""]), st.booleans())
def test_names_made_of_an_owner_and_a_kind_are_secret(owner: str, kind: str, between: str, small: bool) -> None:
    name = f"{owner}{between}{kind}" if between else owner.title().replace("_", "") + kind.title().replace("_", "")
    name = name.lower() if small and between else name
    assert is_secret_name(name)
    for text in (f"{name}=hunter2", f"+a.b.{name}=hunter2", f"{{'{name}': 'hunter2'}}", f"{name}: hunter2\n"):
        assert "hunter2" not in redacted(text), text
    assert redacted({name: "hunter2"}) == {name: "<redacted>"}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "PWD",
            "OLDPWD",
            "primary_key",
            "sort_key",
            "cache_key",
            "public_key",
            "forward_pass",
            "backward_pass",
            "key",
        ),
        *(
            "SSH_AUTH_SOCK",
            "XAUTHORITY",
            "GIT_ASKPASS",
            "keyboard",
            "author",
            "bypass",
            "hockey",
            "design",
            "cookiecutter",
        ),
        *("webhook_timeout", "DBUS_SESSION_BUS_ADDRESS", "compass", "PASSES", "api_key_file_name", "DB_PASSWORD_FILE"),
    ],
)
def test_names_that_only_look_like_those_of_secrets(name: str) -> None:
    assert not is_secret_name(name)


# Built here, so that no scanner takes them for real ones.
FORMATS = {
    "https://hooks.slack.com/services/" + "T000/B000/" + "x" * 20: "https://hooks.slack.com/services/<redacted>",
    "https://discord.com/api/webhooks/" + "1" * 18 + "/" + "y" * 30: "https://discord.com/api/webhooks/<redacted>",
    "https://some.webhook.office.com/" + "webhookb2/" + "z" * 30: "https://some.webhook.office.com/<redacted>",
    "Cookie: session=" + "a" * 9 + "; csrf=" + "b" * 9: "Cookie: <redacted>",
    "< Set-Cookie: id=" + "a" * 9: "< Set-Cookie: <redacted>",
    "AI" + "za" + "S" * 35: "<redacted>",
    "sk_" + "live_" + "4" * 24: "<redacted>",
    "npm" + "_" + "a" * 36: "<redacted>",
    "dapi" + "0" * 32: "<redacted>",
    "https://me.blob.core.windows.net/a?sv=2020&sig="
    + "q" * 20: "https://me.blob.core.windows.net/a?sv=2020&sig=<redacted>",
    "AccountName=me;AccountKey=" + "k" * 20 + "==;End=1": "AccountName=me;AccountKey=<redacted>;End=1",
}


@pytest.mark.parametrize("text", FORMATS, ids=lambda text: text[:12])
def test_further_formats_are_redacted(text: str) -> None:
    assert redacted(text) == FORMATS[text]


@pytest.mark.parametrize(
    "spelled",
    [
        SECRET,
        json.dumps({"x": SECRET}),
        html.escape(SECRET),
        f"https://host/?q={quote(SECRET, safe='')}",
        repr([SECRET]),
        yaml.safe_dump({"x": [SECRET] * 4, "y": f"{'word ' * 14}{SECRET}"}),
        SECRET.replace(" ", "\n"),
    ],
    ids=["plain", "json", "html", "address", "python", "yaml", "folded"],
)
def test_a_secret_is_redacted_in_every_spelling(spelled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", SECRET)
    for text in (redacted(spelled), redact_known(spelled)):
        assert "<redacted>" in text
        assert "42" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hf_abcdefghijklmnopqrstuv is refused", "<redacted> is refused"),
        ("ghp_0123456789abcdefghijABCDEFGHIJ01", "<redacted>"),
        ("AKIAABCDEFGHIJKLMNOP", "<redacted>"),
        ("https://me:pass@word@host/a?b", "https://me:<redacted>@host/a?b"),
        ("http://abcdefghijklmnop0123@host", "http://<redacted>@host"),
        ("ssh://git@github.com/a", "ssh://git@github.com/a"),
        ("Authorization: Bearer abcdefgh1234==", "Authorization: Bearer <redacted>"),
        ("tracker.api_key=short", "tracker.api_key=<redacted>"),
        ("+tracker.password='a b c' seed=1", "+tracker.password='<redacted>' seed=1"),
        ("Talks(api_key='x', n=2)", "Talks(api_key='<redacted>', n=2)"),
        ("{'token': 'x', 'n': 2}", "{'token': '<redacted>', 'n': 2}"),
        ("seed=1,x.token=y", "seed=1,x.token=<redacted>"),
        ("tracker.token=${oc.env:HF_TOKEN}", "tracker.token=${oc.env:HF_TOKEN}"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----", "<redacted>"),
        ("tracker:\n  api_key: x y\n  token: z\n", "tracker:\n  api_key: x y\n  token: <redacted>\n"),
        ("tracker.settings={user: me, password: hunter2}", "tracker.settings={user: me, password: <redacted>}"),
        ("tracker={api_key:'a b',n:1}", "tracker={api_key:'<redacted>',n:1}"),
        ("tracker={n:1,api_key:abcdefgh", "tracker={n:1,api_key:<redacted>"),
        # Plain English is not changed.
        ("a basic training of bearer certificates",) * 2,
        ("{a: 1}, and no token: give one",) * 2,
        ("unknown token: give another", "unknown token: give another"),
        ("a path of 12 tokens; pattern=4x1 keep=2", "a path of 12 tokens; pattern=4x1 keep=2"),
        ("pad_token=[PAD] task.revision=bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",) * 2,
    ],
)
def test_secrets_in_a_text_are_redacted(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_the_value_of_a_secret_key_is_redacted_wherever_it_appears() -> None:
    config = {"tracker": {"api_key": "correct-horse-77", "pin": {"password": 12345678}, "tags": ["a"]}, "seed": 1}
    register_secrets(config)
    hidden = {"tracker": {"api_key": "<redacted>", "pin": {"password": "<redacted>"}, "tags": ["a"]}, "seed": 1}
    assert redacted(config) == hidden
    assert redacted("server: correct-horse-77?") == "server: <redacted>?"
    register_secrets(["x={a:{token:in-braces-1},b:2}"])
    assert redact_known("in-braces-1") == "<redacted>"
    register_secrets(["+x.token=first-one-1,second-one-2"])
    assert redact_known("second-one-2") == "<redacted>"


def test_common_words_and_numbers_are_not_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    for place, value in enumerate(["outputs", "12345678", "0.25", "hunter2", "magnitude"]):
        monkeypatch.setenv(f"A{place}_PASSWORD", value)
    text = "outputs/toy 0.12345678 magnitude hunter2"
    assert redacted(text) == text


def test_the_contents_of_token_and_netrc_files_are_redacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("kept-by-the-hub-1\n")
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password 0123abcd0123abcd\n")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert redacted("kept-by-the-hub-1 0123abcd0123abcd user") == "<redacted> <redacted> user"


def test_every_logger_and_handler_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret-for-a-logger-1")
    before = logging.getLogRecordFactory()
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    logger = logging.getLogger("another.package")
    logger.addHandler(handler)
    try:
        guard_logs()
        logger.error("%s and %d", "secret-for-a-logger-1", 5, stack_info=True)
        try:
            raise ValueError("secret-for-a-logger-1")
        except ValueError:
            logger.exception("failed")
    finally:
        logger.removeHandler(handler)
        logging.setLogRecordFactory(before)
    assert "<redacted> and 5" in out.getvalue()
    assert "ValueError: <redacted>" in out.getvalue()
    assert "secret-for" not in out.getvalue()


def test_overrides_joined_to_a_secret_are_not_redacted() -> None:
    """Hydra joins overrides with commas; only the secret's own items are registered."""
    register_secrets("+tracker.api_key=first-one-1,model=tiny,training.epochs=1")
    assert redacted("first-one-1 model=tiny training.epochs=1") == "<redacted> model=tiny training.epochs=1"
    register_secrets("+tracker.token='padded-one-2=='")
    assert redacted("padded-one-2== model=tiny") == "<redacted> model=tiny"
