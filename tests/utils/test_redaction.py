"""What counts as a secret, how it may be spelled, and what is none."""

from __future__ import annotations

import html
import io
import json
import logging
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from hydraprune.utils import redaction
from hydraprune.utils.redaction import guard_logs, learn, redacted, secret_name, without_known

SECRET = "a 'secret'/with <marks> & \"spaces\" 42"


@pytest.fixture(autouse=True)
def nothing_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_met", set())


@pytest.mark.parametrize(
    "name",
    [
        *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
        *("GITHUB_PAT", "MY_SECRET", "DB_PASSWORD", "PASSWORD_OF_DB", "tracker.api_key", "apiKey", "api-key", "token"),
        *("a.b.password", "wandb.accessToken", "passwd", "credentials", "ssh_private_key"),
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("TOKENIZERS_PARALLELISM", "pad_token", "cls_token", "max_tokens", "token_bytes", "PATH", "path", "keys"),
        *("HF_TOKEN_PATH", "PASSWORD_FILE", "patience", "pattern", "keep", "compatible", "monkey", "task.name"),
    ],
)
def test_names_of_no_secrets(name: str) -> None:
    assert not secret_name(name)


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
def test_a_secret_is_found_however_it_is_spelled(spelled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", SECRET)
    for text in (redacted(spelled), without_known(spelled)):
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
        # Plain words stay.
        ("a basic training of bearer certificates",) * 2,
        ("{a: 1}, and no token: give one",) * 2,
        ("unknown token: give another", "unknown token: give another"),
        ("a path of 12 tokens; pattern=4x1 keep=2", "a path of 12 tokens; pattern=4x1 keep=2"),
        ("pad_token=[PAD] task.revision=bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",) * 2,
    ],
)
def test_shapes(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_what_a_secret_key_holds_is_hidden_and_met_again() -> None:
    config = {"tracker": {"api_key": "correct-horse-77", "pin": {"password": 12345678}, "tags": ["a"]}, "seed": 1}
    learn(config)
    hidden = {"tracker": {"api_key": "<redacted>", "pin": {"password": "<redacted>"}, "tags": ["a"]}, "seed": 1}
    assert redacted(config) == hidden
    assert redacted("server: correct-horse-77?") == "server: <redacted>?"
    learn(["x={a:{token:in-braces-1},b:2}"])
    assert without_known("in-braces-1") == "<redacted>"
    learn(["+x.token=first-one-1,second-one-2"])
    assert without_known("second-one-2") == "<redacted>"


def test_words_and_numbers_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for place, value in enumerate(["outputs", "12345678", "0.25", "hunter2", "magnitude"]):
        monkeypatch.setenv(f"A{place}_PASSWORD", value)
    text = "outputs/toy 0.12345678 magnitude hunter2"
    assert redacted(text) == text


def test_files_with_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("kept-by-the-hub-1\n")
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password 0123abcd0123abcd\n")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert redacted("kept-by-the-hub-1 0123abcd0123abcd user") == "<redacted> <redacted> user"


def test_every_logger_and_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "told-to-a-logger-1")
    before = logging.getLogRecordFactory()
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    logger = logging.getLogger("somebody.elses")
    logger.addHandler(handler)
    try:
        guard_logs()
        logger.error("%s and %d", "told-to-a-logger-1", 5, stack_info=True)
        try:
            raise ValueError("told-to-a-logger-1")
        except ValueError:
            logger.exception("failed")
    finally:
        logger.removeHandler(handler)
        logging.setLogRecordFactory(before)
    assert "<redacted> and 5" in out.getvalue()
    assert "ValueError: <redacted>" in out.getvalue()
    assert "told-to" not in out.getvalue()


def test_words_behind_a_secret_are_none() -> None:
    """Hydra joins what was typed by commas; only the secret's own items are learned."""
    learn("+tracker.api_key=first-one-1,model=tiny,training.epochs=1")
    assert redacted("first-one-1 model=tiny training.epochs=1") == "<redacted> model=tiny training.epochs=1"
    learn("+tracker.token='padded-one-2=='")
    assert redacted("padded-one-2== model=tiny") == "<redacted> model=tiny"
