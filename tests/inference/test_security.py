"""Who may reach the page: address, password, origin, headers."""

import contextlib
import http.client
import time

import pytest
import requests

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.inference import app, security


def test_another_machine_needs_a_password(monkeypatch):
    for name in ("USER", "PASSWORD"):
        monkeypatch.delenv(f"MELANOMA_{name}", raising=False)
    assert security.credentials("127.0.0.1") is None
    with pytest.raises(MelanomaError, match="MELANOMA_USER and MELANOMA_PASSWORD"):
        security.credentials("0.0.0.0")
    monkeypatch.setenv("MELANOMA_USER", "ada")
    with pytest.raises(MelanomaError, match="a password"):
        security.credentials("127.0.0.1")
    monkeypatch.setenv("MELANOMA_PASSWORD", "secret")
    assert security.credentials("0.0.0.0") == ("ada", "secret")


# -- passwords ---------------------------------------------------------------------------------


def test_wrong_passwords_of_one_address_hold_up_no_other(monkeypatch):
    """Forty from one address, then the right one from eight others."""
    login = security.Login("ada", "geheim-ü")
    tries = [login.authenticate("10.0.0.1", "ada", f"wrong {number}") for number in range(40)]
    looked_at = [waiting == 0 for _, waiting in tries]
    assert not any(correct for correct, _ in tries)
    assert looked_at == [True] * security.MAX_FAILURES + [False] * (40 - security.MAX_FAILURES)
    for other in range(2, 10):
        assert login.authenticate(f"10.0.0.{other}", "ada", "geheim-ü") == (True, 0)
    correct, waiting = login.authenticate("10.0.0.1", "ada", "geheim-ü")  # right, but not looked at
    assert not correct and 0 < waiting <= security.FAILURE_SECONDS
    now = time.monotonic()
    monkeypatch.setattr(security.time, "monotonic", lambda: now + security.FAILURE_SECONDS + 1)
    assert login.authenticate("10.0.0.1", "ada", "geheim-ü") == (True, 0)


def test_addresses_that_one_client_can_choose_from_count_as_one():
    throttle = security.LoginThrottle()
    for number in range(security.MAX_FAILURES):
        throttle.add_failure(f"2001:db8::{number:x}")
    assert throttle.waiting_seconds("2001:db8::ffff:1") > 0
    assert throttle.waiting_seconds("2001:db8:0:1::1") == 0
    for _ in range(security.MAX_FAILURES):
        throttle.add_failure("::ffff:10.0.0.1")
    assert throttle.waiting_seconds("10.0.0.1") > 0 and throttle.waiting_seconds("10.0.0.2") == 0


def test_the_addresses_remembered_are_bounded(monkeypatch):
    monkeypatch.setattr(security, "MAX_ADDRESSES", 20)
    throttle = security.LoginThrottle()
    for number in range(100):
        throttle.add_failure(f"10.0.0.{number}")
    assert len(throttle._failures) == 20


def test_a_cookie_is_known_until_it_expires_and_cannot_be_made_up(monkeypatch):
    login = security.Login("ada", "secret")
    cookie = login.make_cookie()
    assert login.is_valid_cookie(cookie)
    expires, _, signature = cookie.partition(".")
    for forged in ("", ".", "x", f"{int(expires) + 1}.{signature}", f"{expires}.", f".{signature}",
                   f"{expires}.ü", security.Login("ada", "secret").make_cookie()):  # fmt: skip
        assert not login.is_valid_cookie(forged)
    now = time.time()
    monkeypatch.setattr(security.time, "time", lambda: now + security.SESSION_SECONDS + 1)
    assert not login.is_valid_cookie(cookie)


@pytest.fixture
def locked(predictor, served):
    """The address of a page with a login."""
    return served(app.WebPage([predictor], login=security.Login("ada", "geheim-ü"))).url


def log_in(url, password, session=requests):
    form = {"user": "ada", "password": password}
    return session.post(f"{url}login", form, allow_redirects=False, timeout=20)


def test_without_a_login_nothing_but_its_page_is_shown(locked, images):
    assert requests.get(locked, timeout=20).url.endswith("/login")
    assert requests.get(f"{locked}examples/mel", timeout=20).status_code == 401
    data = images[0].read_bytes()
    assert requests.post(f"{locked}answer", data, timeout=20).status_code == 401
    with requests.Session() as visitor:
        assert log_in(locked, "wrong", visitor).status_code == 401
        answer = log_in(locked, "geheim-ü", visitor)
        assert answer.status_code == 303
        assert {"HttpOnly", "SameSite=strict"} <= set(answer.headers["Set-Cookie"].split("; "))
        assert visitor.get(locked, timeout=20).url == locked
        assert visitor.post(f"{locked}answer", data, timeout=60).status_code == 200
    assert log_in(locked, "x" * 10_000).status_code == 413


def test_with_a_login_the_page_may_have_the_name_of_the_proxy_before_it(locked):
    named = {"Host": "page.example", "Origin": "https://page.example"}
    form = {"user": "ada", "password": "geheim-ü"}
    answer = requests.post(
        f"{locked}login", form, allow_redirects=False, timeout=20,
        headers=named | {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"},
    )  # fmt: skip
    assert answer.status_code == 303 and "Secure" in answer.headers["Set-Cookie"]


def test_who_guesses_hears_busy_and_others_get_in_meanwhile(locked):
    """The guesser has another of this machine's addresses than the rest."""
    host, _, port = locked.removeprefix("http://").rstrip("/").partition(":")
    form = "user=ada&password="

    def authenticate_as(source, password):
        connection = http.client.HTTPConnection(host, int(port), 20, (source, 0))
        with contextlib.closing(connection):
            connection.request("POST", "/login", form + password)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.getheader("Retry-After")

    statuses = [authenticate_as("127.0.0.2", "wrong")[0] for _ in range(security.MAX_FAILURES + 5)]
    assert statuses == [401] * security.MAX_FAILURES + [429] * 5
    status, text, retry = authenticate_as("127.0.0.2", "geheim-%C3%BC")
    assert status == 429 and "Busy" in text and security.WRONG not in text and int(retry) > 0
    assert [authenticate_as("127.0.0.1", "geheim-%C3%BC")[0] for _ in range(8)] == [303] * 8


# -- origin and headers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 403),  # a foreign name that leads to this machine
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Origin": "{own}"}, 200),
        ({}, 200),  # a program
    ],
)
def test_another_site_cannot_post(page, images, headers, status):
    site, post = page
    own = site.url.rstrip("/")
    named = {name: value.format(own=own) for name, value in headers.items()}
    answer = post("answer", images[0].read_bytes(), **named)
    assert answer.status_code == status and (status == 200) == answer.text.startswith("{")


@pytest.mark.parametrize("path", ["", "login", "static/page.js", "nowhere", "examples/mel"])
def test_every_answer_says_what_a_browser_may_do_with_it(page, path):
    site, _ = page
    headers = requests.get(site.url + path, timeout=20).headers
    assert headers["X-Frame-Options"] == "DENY" and headers["X-Content-Type-Options"] == "nosniff"
    policy = headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy and "default-src 'none'" in policy
    assert "script-src 'self';" in policy and "unsafe-eval" not in policy


def test_the_page_keeps_to_its_own_policy(page):
    """No script stands in the page itself, and no address is another machine's."""
    site, _ = page
    text = requests.get(site.url, timeout=20).text
    for path in ("static/page.css", "static/page.js", "static/visit.js"):
        text += requests.get(site.url + path, timeout=20).text
    assert "<script>" not in text and "<style" not in text and " onclick=" not in text
    assert "http://" not in text and "https://" not in text


@pytest.mark.parametrize(
    "path", ["gradio_api/run/predict", "gradio_api/upload", "gradio_api/queue/join", "docs",
             "static/../app.py", "static/%2e%2e/app.py", "openapi.json"]
)  # fmt: skip
def test_there_is_no_other_door(page, path):
    site, post = page
    assert post(path, b"{}").status_code in (404, 405)
    assert requests.get(site.url + path, timeout=20).status_code == 404
