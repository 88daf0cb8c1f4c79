"""Proxies and TLS before control: proofs, single sign-on, and certificates that are replaced."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.certificates import Authority
from contract.test_gatekeeper import Gate, bearer, scope
from kedge.adapters.clock import SystemClock
from kedge.adapters.sql.sqlite.create import create
from kedge.config.load import read
from kedge.config.model import ControlBind, ProxySettings
from kedge.core.access import Access, AccessKind, Group, Role
from kedge.core.errors import BadConfig, Denied, KedgeError
from kedge.engine.loop import Duty
from kedge.engine.process_faults import ProcessFaults
from kedge.runtime.access import certificates_of, open_doors, proxy_of
from kedge.web import server
from kedge.web.auth import PROXIED_S, Gatekeeper
from kedge.web.certificates import WARN_S, check_ends, read_end
from kedge.web.proxy import ProxyHeaders, TrustedProxy
from kedge.workspace import Workplace
from support.waiting import wait_until

SECRET = "0123456789abcdef-proxy"
GROUPS = {
    "ml-ops": Group(Role.OPERATOR, ("flights",)),
    "staff": Group(Role.VIEWER),
    "root": Group(Role.ADMIN),
}
ADA = {"x_forwarded_user": "ada", "x_forwarded_groups": "other, ml-ops,staff"}
PROOF = {"kedge_proxy_secret": SECRET}


class Before:
    """A gatekeeper behind a proxy, and what it counted."""

    def __init__(self, root: Path, *, is_needed: bool = False) -> None:
        create(root)
        self.gate = Gate(Workplace(root))
        self.counted: Counter[str] = Counter()
        headers = ProxyHeaders((SECRET.encode(),), mapped=GROUPS)
        proxy = TrustedProxy(
            headers, is_needed=is_needed, limit=lambda bound: self.counted.update([bound])
        )
        self.gate.keeper = Gatekeeper(self.gate.table, self.gate.now, 8081, proxy)

    def code(self, method: str = "GET", **headers: str) -> str:
        return self.gate.code(method, **headers)


@pytest.fixture
def before(tmp_path: Path) -> Before:
    return Before(tmp_path)


def test_a_proven_proxy_names_the_user_and_its_groups_the_role(before: Before) -> None:
    found = before.gate.identify(**ADA, **PROOF)
    assert found == Access(
        "ada",
        AccessKind.PROXY,
        role=Role.OPERATOR,
        endpoints=("flights",),
        expires_at=found.expires_at,
    )
    both = before.gate.identify(**{**ADA, "x_forwarded_groups": "ml-ops,root"}, **PROOF)
    assert (both.role, both.endpoints) == (Role.ADMIN, None)


@pytest.mark.parametrize(
    "proof",
    [{}, {"kedge_proxy_secret": SECRET + "x"}, {"kedge_proxy_secret": ""}, {"x_real_ip": "::1"}],
)
def test_headers_of_any_other_sender_are_ignored_and_counted(
    before: Before, proof: dict[str, str]
) -> None:
    assert before.code(**ADA, **proof) == "token_missing"
    assert before.counted == {"control.unproven_proxy": 1}
    text = before.gate.make("ci", role=Role.VIEWER)
    assert before.gate.identify(**bearer(text), **ADA, **proof).name == "ci"
    assert before.counted == {"control.unproven_proxy": 2}


@pytest.mark.parametrize("groups", ["", "other", "ML-OPS", "ml-ops;root", "ml-opsx"])
def test_an_unmapped_user_has_no_access(before: Before, groups: str) -> None:
    asked = {**ADA, "x_forwarded_groups": groups}
    assert before.code(**asked, **PROOF) == "not_mapped"
    assert before.code(x_forwarded_user="ada", **PROOF) == "not_mapped"


def test_a_user_is_named_once(before: Before) -> None:
    head = scope("GET", **ADA, **PROOF)
    head["headers"].append((b"x-forwarded-user", b"bob"))
    with pytest.raises(KedgeError) as caught:
        before.gate.run(before.gate.keeper.identify(head))
    assert caught.value.code == "not_mapped"


def test_groups_are_named_once_and_in_utf_8(before: Before) -> None:
    """A proxy that adds its header to that of its caller would let the caller choose a group."""
    head = scope("GET", **ADA, **PROOF)
    head["headers"].append((b"x-forwarded-groups", b"root"))
    with pytest.raises(KedgeError) as caught:
        before.gate.run(before.gate.keeper.identify(head))
    assert caught.value.code == "not_mapped"
    spelled = scope("GET", x_forwarded_user="ada", **PROOF)
    spelled["headers"].append((b"x-forwarded-groups", "équipe,staff".encode()))
    assert before.gate.run(before.gate.keeper.identify(spelled)).role is Role.VIEWER
    spelled["headers"][-1] = (b"x-forwarded-groups", b"staff\xff")
    with pytest.raises(KedgeError) as caught:
        before.gate.run(before.gate.keeper.identify(spelled))
    assert caught.value.code == "not_mapped"


def test_the_socket_of_a_proxy_replaces_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "c.sock").write_text("a file of the operator")
    with pytest.raises(KedgeError) as caught:
        server.listen_socket(tmp_path / "c.sock")
    assert caught.value.code == "port_taken"
    assert (tmp_path / "c.sock").read_text() == "a file of the operator"


def test_a_browsers_write_through_the_proxy_needs_a_header_that_no_form_has(
    before: Before,
) -> None:
    browser = {**ADA, **PROOF, "origin": "https://kedge.internal"}
    assert before.code("POST", **browser) == "csrf"
    shown = before.gate.keeper.csrf(scope("GET", **browser))
    assert before.code("POST", **browser, kedge_csrf=shown) == ""
    assert before.code("POST", **ADA, **PROOF) == ""


def test_the_proxy_is_asked_again_before_a_stream_of_its_user_lasts_for_hours(
    before: Before,
) -> None:
    gate = before.gate
    access = gate.identify(**ADA, **PROOF)
    gate.ahead_s = PROXIED_S - 5
    assert gate.keeper.ended(access) is None
    gate.ahead_s = PROXIED_S + 1
    assert gate.keeper.ended(access) is not None
    assert gate.code(**ADA, **PROOF) == ""


def test_a_plain_port_that_others_reach_takes_requests_of_its_proxy_only(tmp_path: Path) -> None:
    open_ = Before(tmp_path, is_needed=True)
    text = open_.gate.make()
    assert open_.code(**bearer(text)) == "proxy_needed"
    assert open_.code(**bearer(text), **PROOF) == ""
    with pytest.raises(Denied) as caught:
        open_.gate.run(open_.gate.keeper.login(scope("POST"), token=text))
    assert caught.value.code == "proxy_needed"


def test_the_cookie_is_secure_where_a_proven_proxy_says_so(before: Before) -> None:
    text = before.gate.make()
    for proof, secure in ((PROOF, True), ({}, False)):
        head = scope("POST", x_forwarded_proto="https", **proof)
        done = before.gate.run(before.gate.keeper.login(head, token=text))
        assert done.set_cookie.startswith("__Host-kedge-8081=") is secure


@pytest.mark.parametrize(
    "text, fault",
    [
        ('host = "0.0.0.0"', "control.host: 0.0.0.0 is reachable from outside"),
        ('hosts = ["https://kedge.internal"]', "control.hosts: must be a name or an address"),
        ('hosts = ["kedge.internal:8081"]', "control.hosts"),
        ('certificate = "c.pem"', "control.certificate: needs key"),
        ('client_ca = "ca.pem"', "control.client_ca"),
        ('socket = "s"\ncertificate = "c"\nkey = "k"', "control.socket"),
        ('[control.proxy.groups.ops]\nrole = "admin"', "control.proxy.groups"),
    ],
)
def test_settings_that_leave_control_open_are_refused(text: str, fault: str) -> None:
    with pytest.raises(BadConfig) as caught:
        read(f"[control]\n{text}\n")
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        'host = "0.0.0.0"\ncertificate = "c.pem"\nkey = "k.pem"',
        'host = "0.0.0.0"\n[control.proxy]\nsecret_file = "secret"',
        'socket = "s"\n[control.proxy.groups.ops]\nrole = "operator"\nendpoints = ["flights"]',
    ],
)
def test_settings_by_which_callers_or_a_proxy_prove_themselves_are_taken(text: str) -> None:
    assert read(f"[control]\n{text}\n").control != ControlBind()


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o644)
    bind = ControlBind(proxy=ProxySettings(secret_file="secret"))
    with pytest.raises(BadConfig):
        proxy_of(bind, tmp_path, ProcessFaults(SystemClock()))


async def told(scope_: Any, _: Any, send: Any) -> None:
    """An app that answers whether the connection is a proxy's, and its scheme."""
    raw = f"{scope_['scheme']} {scope_['state'].get('kedge.proven')}".encode()
    headers = [(b"content-length", b"%d" % len(raw))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": raw})


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    running: list[tuple[Any, threading.Thread]] = []

    def start(bind: ControlBind, folder: Path) -> Any:
        doors = open_doors(bind, 0, folder)
        made = server.make_server(told, ProcessFaults(SystemClock()), doors.certificates)
        thread = threading.Thread(target=made.run, kwargs={"sockets": doors.listeners}, daemon=True)
        thread.start()
        running.append((made, thread))
        return doors

    yield start
    for made, thread in running:
        made.should_exit = True
        thread.join(10)


def ask(port: int, context: ssl.SSLContext) -> tuple[str, int]:
    """The answer over TLS, and the serial number of the certificate."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    try:
        connection.request("GET", "/")
        peer = connection.sock.getpeercert()
        assert peer is not None
        return connection.getresponse().read().decode(), int(str(peer["serialNumber"]), 16)
    finally:
        connection.close()


def look(doors: Any, ahead_s: float = 0.0) -> None:
    """Look for replaced certificates; those of tests end soon, which is another report."""
    try:
        doors.certificates.look(time.time() + ahead_s)
    except BadConfig as error:
        if error.code != "certificate_expires":
            raise


def write_pair(authority: Authority, folder: Path, days: int = 2) -> None:
    """Replace certificate and key, each by a rename, as a client of ACME does."""
    authority.signs("IP:127.0.0.1", days=days)
    made = authority.file.parent
    for source, name in (("one.pem", "cert.pem"), ("one.key", "key.pem")):
        (folder / f"{name}.new").write_bytes((made / source).read_bytes())
        (folder / f"{name}.new").replace(folder / name)


def test_tls_takes_a_replaced_certificate_without_a_restart(
    tmp_path: Path, serve: Callable[..., Any]
) -> None:
    authority = Authority(tmp_path / "ca")
    write_pair(authority, tmp_path)
    bind = ControlBind(certificate="cert.pem", key="key.pem", client_ca="ca/ca.pem")
    doors = serve(bind, tmp_path)
    context = ssl.create_default_context(cafile=str(authority.file))
    answer, serial = ask(doors.port, context)
    assert answer == "https False"
    write_pair(authority, tmp_path)
    look(doors)
    _, renewed = ask(doors.port, context)
    assert renewed != serial
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(BadConfig) as caught:
        look(doors)
    assert caught.value.code == "bad_certificate"
    assert ask(doors.port, context)[1] == renewed
    write_pair(authority, tmp_path)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    assert ask(doors.port, context)[0] == "https True"


def test_an_expired_certificate_is_refused_by_clients_until_it_is_replaced(
    tmp_path: Path, serve: Callable[..., Any]
) -> None:
    authority = Authority(tmp_path / "ca")
    write_pair(authority, tmp_path, days=0)
    doors = serve(ControlBind(certificate="cert.pem", key="key.pem"), tmp_path)
    context = ssl.create_default_context(cafile=str(authority.file))

    def expired() -> bool:
        try:
            ask(doors.port, context)
        except ssl.SSLCertVerificationError as error:
            return "expired" in str(error)
        return False

    wait_until(expired, "the end of the certificate")
    write_pair(authority, tmp_path)
    look(doors)
    assert ask(doors.port, context)[0] == "https False"


@pytest.mark.parametrize("ended", ["cert.pem", "ca/ca.pem"])
def test_the_end_of_a_certificate_is_reported_before_it_and_after_it(
    tmp_path: Path, ended: str
) -> None:
    authority = Authority(tmp_path / "ca")
    write_pair(authority, tmp_path, days=1 if ended == "cert.pem" else 3)
    bind = ControlBind(certificate="cert.pem", key="key.pem", client_ca="ca/ca.pem")
    doors = open_doors(bind, 0, tmp_path)
    faults = ProcessFaults(SystemClock())
    try:
        assert doors.certificates is not None
        now, end = time.time(), read_end(tmp_path / ended)
        days = 1 if ended == "cert.pem" else 2
        assert end == pytest.approx(now + days * 86_400, abs=300)
        doors.certificates.look(end - WARN_S - 60)
        for at, code in ((end - WARN_S + 60, "certificate_expires"), (end, "certificate_expired")):
            with pytest.raises(BadConfig) as caught:
                doors.certificates.look(at)
            assert caught.value.code == code
            assert ended in str(caught.value)
        step = certificates_of(Duty(SystemClock(), faults), doors.certificates)["certificates"]
        step.net.run("control.certificates", step._step)
        assert "the certificate expires at" in faults.standing("control.certificates")
    finally:
        for listener in doors.listeners:
            listener.close()


def test_the_earliest_end_of_a_chain_counts_and_other_bytes_are_no_certificate(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path / "ca")
    write_pair(authority, tmp_path, days=9)
    chain = tmp_path / "chain.pem"
    chain.write_bytes((tmp_path / "cert.pem").read_bytes() + authority.file.read_bytes())
    assert read_end(chain) == read_end(authority.file) < read_end(tmp_path / "cert.pem")
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    for text in ("", f"{begin}\n{end}\n", f"{begin}\nMIIB\n{end}\n", f"{begin}\nAAAA\n{end}\n"):
        chain.write_text(text)
        with pytest.raises(BadConfig) as caught:
            check_ends((chain,), time.time())
        assert caught.value.code == "bad_certificate"


def test_a_connection_of_the_unix_socket_is_the_proxys(
    tmp_path: Path, serve: Callable[..., Any]
) -> None:
    doors = serve(ControlBind(socket="c.sock"), tmp_path)
    for address, family, proven in (
        (str(tmp_path / "c.sock"), socket.AF_UNIX, "http True"),
        (("127.0.0.1", doors.port), socket.AF_INET, "http False"),
    ):
        with socket.socket(family) as connection:
            connection.settimeout(10)
            connection.connect(address)
            connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            raw = b""
            while part := connection.recv(4096):
                raw += part
        assert raw.endswith(proven.encode())
    assert (tmp_path / "c.sock").stat().st_mode & 0o007 == 0
