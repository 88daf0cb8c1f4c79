"""The dashboard in a real browser: live, accessible, and small, with real workers behind it."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chromium import CHROMIUM, PAGES, excess_px, read_axe, serious_faults, started

from contract.sql_world import world
from e2e.conftest import making_sites
from e2e.place import Load, Site, free_port
from kedge.core.access import Access, AccessKind, Role
from kedge.core.alerts.alerts import Raise, Topic
from kedge.core.diagnosis.findings import Act, Cause
from kedge.core.diagnosis.summary import DiagnosisSummary
from kedge.core.errors import Unavailable
from kedge.core.release.commands import Freeze, Promote
from kedge.core.stored.notes import build_note
from kedge.engine.process_faults import ProcessFaults
from kedge.web import login, server
from kedge.web.dashboard.rates import TrafficSampler
from kedge.workspace import Workplace
from support.pages import Session, make_dashboard, make_front
from support.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]


class Served:
    """The pages of a state directory on a port of their own."""

    def __init__(self, state_dir: Path, session: Session, port: int) -> None:
        self.state_dir, self.session, self.port = state_dir, session, port
        self.sampler = TrafficSampler()
        self._ending = threading.Event()
        self.start()
        self._samples = threading.Thread(target=self._sample, daemon=True)
        self._samples.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        place = Workplace(self.state_dir)
        self.dashboard = make_dashboard(self.state_dir, self.session, self.sampler)
        front = make_front(place, self.dashboard, self.session)
        self.listener = server.listen(self.port)
        self.server = server.make_server(front, ProcessFaults(place.clock))
        self._thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.listener]}, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self._thread.join(15)
        self.listener.close()

    def _sample(self) -> None:
        place = Workplace(self.state_dir)
        while not self._ending.wait(1.0):
            with suppress(Unavailable):  # as control: the next sample is tried
                self.sampler.sample(place)

    def end(self) -> None:
        self._ending.set()
        self._samples.join(10)
        self.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started() as opened:
        yield opened


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a page; a fault of a script or of the policy fails the test."""
    faults: list[str] = []
    contexts: list[Any] = []

    def opened(
        url: str, *, scheme: str = "light", width: int = 1280, who: str = "", scripts: bool = True
    ) -> Page:
        context = browser.new_context(
            color_scheme=scheme,  # type: ignore[arg-type]
            viewport={"width": width, "height": 800},
            java_script_enabled=scripts,
        )
        if who:
            context.add_cookies([{"name": "who", "value": who, "url": url}])
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda said: faults.append(said.text) if "Content Security" in said.text else None,
        )
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """r1 is production, r2 a canary at half of the callers, under traffic."""
    with making_sites() as make:
        made = make(policy='entity = "x"\n')
        made.start(patrol=False)
        made.release()
        made.run("canary", "flights", "v2", "--weight", "50", "--override", "a test")
        yield made


@pytest.fixture(scope="module")
def load(site: Site) -> Iterator[Load]:
    with site.load(rate=40.0) as found:
        yield found


@pytest.fixture(scope="module")
def served(site: Site, load: Load) -> Iterator[Served]:
    made = Served(site.root / ".kedge", Session(), free_port())
    yield made
    made.end()


@pytest.fixture(scope="module")
def axe() -> str:
    try:
        return read_axe()
    except OSError as error:
        pytest.skip(f"needs axe-core from the npm registry: {error}")


def live(page: Page) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#state")).to_have_text("live", timeout=15_000)


def changes(page: Page, selector: str, before: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator(selector).first).not_to_have_text(before, timeout=10_000)


def test_a_page_follows_the_traffic(served: Served, open_page: Callable[..., Page]) -> None:
    page = open_page(served.url + "endpoints/flights")
    live(page)
    changes(page, "#live dd.num", page.inner_text("#live dd.num"))
    page.locator(".chart canvas").first.wait_for()
    page.locator("#live").get_by_text("epoch").first.wait_for()


def test_a_command_of_another_operator_reaches_the_pixels_in_seconds(
    served: Served, site: Site, open_page: Callable[..., Page]
) -> None:
    page = open_page(served.url)
    live(page)
    site.run("freeze", "flights", "--reason", "a test")
    began = time.monotonic()
    page.get_by_text("frozen").first.wait_for(timeout=10_000)
    took = time.monotonic() - began
    site.run("thaw", "flights")
    page.get_by_text("frozen").first.wait_for(state="detached", timeout=10_000)
    assert took < 8.0  # 2 s on an idle machine; the suite shares its cores


def test_focus_and_what_was_typed_survive_an_update(
    served: Served, open_page: Callable[..., Page]
) -> None:
    page = open_page(served.url + "endpoints/flights")
    live(page)
    page.get_by_role("link", name="Decisions", exact=True).focus()
    page.get_by_text("What is this?").click()
    before = page.inner_text("#live dd.num")
    page.get_by_role("link", name="Decisions", exact=True).focus()
    changes(page, "#live dd.num", before)
    assert page.evaluate("document.activeElement.textContent") == "Decisions"


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_a_serious_fault_for_assistive_technology(
    served: Served, open_page: Callable[..., Page], axe: str, path: str
) -> None:
    for scheme in ("light", "dark"):
        page = open_page(served.url + path, scheme=scheme, width=360)
        check_page(page, axe)
        page.context.close()


def check_page(page: Page, axe: str) -> None:
    """Fail if a page has a serious fault for assistive technology, or does not fit its width."""
    assert serious_faults(page, axe) == []
    wide = excess_px(page)
    assert wide <= 0, f"{page.url} is {wide} px too wide"


def receipt_with(page: Page, text: str) -> None:
    """Wait for the receipt of a command that a form sent."""
    page.wait_for_url("**/acts/**")
    page.locator("#receipt").get_by_text(text).first.wait_for()


def go_by_keyboard(page: Page, name: str) -> None:
    """Move the focus to a link or button, by the Tab key alone."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent").strip() == name:
            return
    raise AssertionError(f"no {name} within forty Tabs")


def test_a_rollback_needs_only_the_keyboard(
    site: Site, served: Served, open_page: Callable[..., Page]
) -> None:
    """On a phone's width: from the fleet to the receipt, which has an ack of each worker."""
    page = open_page(served.url, width=360)
    live(page)
    go_by_keyboard(page, "flights")
    page.keyboard.press("Enter")
    page.wait_for_url("**/endpoints/flights")
    go_by_keyboard(page, "Roll back")
    page.keyboard.press("Enter")
    page.get_by_text("to zero").first.wait_for()
    page.get_by_label("Reason").focus()
    page.keyboard.type("late flights <script>alert(1)</script>")
    page.keyboard.press("Enter")
    page.wait_for_url("**/acts/**")
    page.get_by_text("from 50 % to zero").wait_for(timeout=15_000)
    assert page.get_by_text("acknowledged after").count() == 2
    assert site.data("status", "flights")["candidate"] is None
    page.goto(served.url + "endpoints/flights")
    page.get_by_text("late flights <script>").first.wait_for()


def test_a_viewer_reads_why_a_button_is_disabled(
    served: Served, open_page: Callable[..., Page]
) -> None:
    operator = served.session.access
    served.session.access = Access("eve", AccessKind.SESSION, role=Role.VIEWER)
    try:
        page = open_page(served.url + "endpoints/flights")
        button = page.get_by_role("button", name="Roll back")
        button.focus()
        page.locator("#why-rollback").wait_for(state="visible")
        assert "viewer" in page.inner_text("#why-rollback")
        button.click(force=True)
        assert page.url.endswith("/endpoints/flights")
    finally:
        served.session.access = operator


def test_a_page_reconnects_after_control_was_restarted(
    served: Served, open_page: Callable[..., Page]
) -> None:
    page = open_page(served.url)
    live(page)
    served.stop()
    page.locator("#state").get_by_text("reconnecting").wait_for()
    served.start()
    live(page)


def test_ages_are_those_of_the_servers_clock(
    browser: Browser, served: Served, open_page: Callable[..., Page]
) -> None:
    page = open_page("about:blank")
    page.add_init_script("const real = Date.now; Date.now = () => real() - 86400 * 1000 * 3;")
    page.goto(served.url + "endpoints/flights")
    age = page.locator("#events time").first
    wait_until(lambda: "ago" in age.inner_text(), age.inner_text)
    assert re.search(r"\d+ (s|min) ago", age.inner_text()), age.inner_text()


# ---------------------------------------------------------------- commands


@pytest.fixture
def thawed(site: Site) -> None:
    """Automation acts, also after a test that failed."""
    site.run("thaw", "flights", check=False)


def test_two_operators_at_once_and_only_the_first_acts(
    thawed: None, served: Served, site: Site, open_page: Callable[..., Page]
) -> None:
    form = served.url + "endpoints/flights/act/freeze"
    ada, grace = open_page(form, who="ada"), open_page(form, who="grace")
    live(ada)
    ada.get_by_label("Reason").fill("ada's reason")
    grace.get_by_label("Reason").fill("grace's reason")
    grace.get_by_role("button", name="Freeze").dblclick()
    receipt_with(grace, "automation is stopped")
    ada.get_by_text("changed after this form was made").wait_for()
    assert "grace" in ada.inner_text("#notice")
    ada.get_by_role("button", name="Freeze").click()
    receipt_with(ada, "Nothing happened")
    assert "grace's reason" in ada.inner_text("#receipt")
    history = site.data("history", "flights")
    assert [e["by"] for e in history if e["event"]["event"] == "frozen"][:1] == ["grace"]
    ada.go_back()
    assert ada.url == "about:blank"  # and not the form, which would ask for something else now
    ada.goto(served.url + "endpoints/flights/act/thaw")
    ada.get_by_role("button", name="Thaw").click()
    receipt_with(ada, "automation acts again")


def test_what_was_typed_outlives_the_page_until_it_is_sent(
    thawed: None, served: Served, open_page: Callable[..., Page]
) -> None:
    form = served.url + "endpoints/flights/act/freeze"
    page = open_page(form)
    page.get_by_label("Reason").type("the <b>labels</b> are late")
    page.goto(served.url)
    page.goto(form)  # as after a login
    assert page.get_by_label("Reason").input_value() == "the <b>labels</b> are late"
    page.get_by_role("button", name="Freeze").click()
    receipt_with(page, "automation is stopped")
    page.get_by_text("the <b>labels</b> are late").wait_for()
    page.goto(served.url + "endpoints/flights/act/thaw")
    page.get_by_role("button", name="Thaw").click()
    receipt_with(page, "automation acts again")
    page.goto(form)
    assert page.get_by_label("Reason").input_value() == ""


def test_a_form_and_its_receipt_work_without_scripts(
    thawed: None, served: Served, open_page: Callable[..., Page]
) -> None:
    page = open_page(served.url + "endpoints/flights", scripts=False)
    for act, done in (("Freeze", "automation is stopped"), ("Thaw", "automation acts again")):
        page.get_by_role("link", name=act).click()
        page.get_by_label("Reason").fill("no scripts here")
        page.get_by_role("button", name=act).click()
        receipt_with(page, done)
        page.get_by_role("link", name="To flights").click()


def test_a_replica_that_does_not_acknowledge_is_shown_and_bounds_the_wait(
    thawed: None, served: Served, site: Site, open_page: Callable[..., Page]
) -> None:
    (stopped, *_) = site.data("status", "flights")["replicas"]
    os.kill(stopped["pid"], signal.SIGSTOP)
    try:
        page = open_page(served.url + "endpoints/flights/act/freeze")
        page.get_by_role("button", name="Freeze").click()
        page.get_by_text("replicas follow").wait_for()
        assert stopped["name"] in page.inner_text("#receipt")
        told = page.get_by_text(re.compile("did not acknowledge|its process ended before"))
        told.wait_for(timeout=60_000)
    finally:
        os.kill(stopped["pid"], signal.SIGCONT)
    site.run("thaw", "flights", check=False)


def test_receipt_and_login_serve_a_phone_a_keyboard_and_assistive_technology(
    thawed: None, served: Served, open_page: Callable[..., Page], axe: str
) -> None:
    word = "x" * 480
    page = open_page(served.url + "endpoints/flights/act/freeze", width=360)
    page.get_by_label("Reason").focus()
    page.keyboard.type(word)
    page.keyboard.press("Enter")
    receipt_with(page, "automation is stopped")
    receipt = page.url
    go_by_keyboard(page, "To flights")
    page.keyboard.press("Enter")
    page.wait_for_url("**/endpoints/flights")
    page.goto(served.url + "endpoints/flights/act/thaw")
    page.get_by_role("button", name="Thaw").press("Enter")
    receipt_with(page, "automation acts again")
    for scheme in ("light", "dark"):
        again = open_page(receipt, scheme=scheme, width=360)
        assert word in again.inner_text("#receipt")
        check_page(again, axe)
        again.emulate_media(media="print")
        assert again.get_by_role("link", name="To flights").is_hidden()
        door = open_page("about:blank", scheme=scheme, width=360)
        door.route("**/login", answer_login(served))
        door.goto(served.url + "login")
        check_page(door, axe)
        for _ in range(5):
            if door.evaluate("document.activeElement.name") == "token":
                break
            door.keyboard.press("Tab")
        door.keyboard.type("kedge_abc")
        door.keyboard.press("Enter")
        door.get_by_text("the token is not known").wait_for()


def answer_login(served: Served) -> Callable[[Any], None]:
    """Answers with the page of a login, which the front of these tests does not have."""

    def answer(route: Any) -> None:
        posted = route.request.post_data or ""
        fault = "the token is not known" if posted == "token=kedge_abc" else ""
        text = served.dashboard.draw_login(fault, "")
        route.fulfill(status=200, headers=login.HEADERS, content_type="text/html", body=text)

    return answer


def test_scripts_in_an_alert_and_a_diagnosis_are_text(
    served: Served, open_page: Callable[..., Page]
) -> None:
    script = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    place = Workplace(served.state_dir)
    found = Raise(
        key="a test", topic=Topic.OTHER, level="page", lasts="event", summary=script, detail=script
    )
    place.alerts.raise_all(
        [("flights", found)], by=script, at=place.clock.now(), now=place.clock.unix()
    )
    summary = DiagnosisSummary(
        at=place.clock.unix(),
        since=0.0,
        until=1.0,
        requests=1,
        labelled=1,
        new=1,
        old=None,
        metric="log_loss",
        headline=script,
        causes=(Cause.MODEL,),
        statements=(script,),
        action=Act.HOLD,
        advice=script,
        missing=(script,),
    )
    place.ledger.note(
        "flights", build_note(summary), by=script, reason=script, at=place.clock.now()
    )
    asked: list[str] = []
    paths = ("", "alerts", "endpoints/flights", "endpoints/flights/diagnosis")
    for path in (*paths, "endpoints/flights/decisions", "endpoints/flights/act/rollback"):
        page = open_page(served.url + path)
        page.on("dialog", lambda one: asked.append(one.message))
        live(page)
        assert page.locator("main img").count() == 0
        if path != "":
            page.get_by_text(script).first.wait_for()
        page.context.close()
    assert asked == []


def test_what_a_person_opened_stays_open(
    served: Served, load: Load, open_page: Callable[..., Page]
) -> None:
    page = open_page(served.url + "endpoints/flights/ready")
    live(page)
    more = page.locator("details", has_text="If that is not enough")
    more.locator("summary").first.click()
    before = page.inner_text("#ready .checks")
    changes(page, "#ready .checks", before)  # it tells ages
    assert more.get_attribute("open") is not None


# ---------------------------------------------------------------- bounds


def test_two_hundred_endpoints_fit_a_page(tmp_path: Path, open_page: Callable[..., Page]) -> None:
    made = world(tmp_path)
    for number in range(199):  # and flights
        name = f"endpoint-{number:03d}"
        made.configure(endpoint=name)
        made.do(Promote(release=made.release(1, name).number), name)
    made.do(Freeze(), "endpoint-007")
    served = Served(made.state_dir, Session(), free_port())
    try:
        page = open_page("about:blank")
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        sizes: dict[str, int] = {}
        kinds: dict[str, str] = {}
        session.on("Network.responseReceived", lambda e: kinds.update({e["requestId"]: e["type"]}))
        session.on(
            "Network.loadingFinished",
            lambda e: sizes.update({e["requestId"]: e["encodedDataLength"]}),
        )
        page.goto(served.url)  # the server reads its state for the first time
        sizes.clear()
        page.goto(served.url)
        page.locator("#row-endpoint-007").wait_for()
        painted = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
        wait_until(lambda: page.evaluate(painted), lambda: "a first paint")
        paint = page.evaluate(painted) / 1000
        document = sum(n for name, n in sizes.items() if kinds.get(name) == "Document") / 1024
        assert page.locator("#fleet tbody tr").count() == 200
        assert document <= 150, document
        assert paint <= 6.0, paint  # 1 s on an idle machine
        page.get_by_label("Filter endpoints").fill("endpoint-007")
        assert page.locator("#fleet tbody tr:visible").count() == 1
        live(page)
        assert page.get_by_label("Filter endpoints").input_value() == "endpoint-007"
        assert page.locator("#fleet tbody tr:visible").count() == 1
    finally:
        served.end()


def test_scripts_and_styles_fit_a_slow_phone(
    served: Served, open_page: Callable[..., Page]
) -> None:
    page = open_page("about:blank")
    loaded: list[int] = []
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.loadingFinished", lambda e: loaded.append(e["encodedDataLength"]))
    page.goto(served.url + "endpoints/flights")
    live(page)
    assert sum(loaded) / 1024 <= 100, loaded
