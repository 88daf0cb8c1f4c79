// The browser's part: times in the viewer's zone, charts, filter and order, theme, and the state
// of the stream. The server renders everything else.
(() => {
  "use strict";

  const SILENT_MS = 12000; // the server sends a pulse every 5 s
  const state = document.getElementById("state");
  const silence = document.getElementById("silence");
  const ticks = () => performance.now(); // no change of the browser's clock moves it
  // The server's clock: no age depends on the clock of the browser, or on a change of it.
  let server = { now: Number(document.body.dataset.now), at: ticks() };
  let heard = ticks();
  let connected = false;

  // ---------------------------------------------------------------- times

  const two = (n) => String(n).padStart(2, "0");
  function local(at) {
    const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
    return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  }
  function utc(at) {
    return `${at.toISOString().slice(0, 19).replace("T", " ")} UTC`;
  }
  function ago(seconds) {
    const s = Math.max(seconds, 0);
    if (s < 90) return `${Math.round(s)} s ago`;
    if (s < 5400) return `${Math.round(s / 60)} min ago`;
    if (s < 129600) return `${Math.round(s / 3600)} h ago`;
    return `${Math.round(s / 86400)} days ago`;
  }
  function serverNow() {
    return server.now + (ticks() - server.at) / 1000;
  }
  function times(root) {
    for (const element of root.querySelectorAll("time[data-when]")) {
      const at = new Date(element.dateTime);
      const age = ago(serverNow() - at.getTime() / 1000);
      const text = `${local(at)} (${utc(at).slice(11)}) · ${age}`;
      if (element.textContent !== text) element.textContent = text;
      element.title = utc(at);
    }
  }

  // ---------------------------------------------------------------- charts

  const charts = new Map(); // element -> {plot, raw}
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function marks(data) {
    return (plot) => {
      const context = plot.ctx;
      const { top, height, left, width } = plot.bbox;
      const ratio = devicePixelRatio;
      const line = (fromX, fromY, toX, toY) => {
        context.beginPath();
        context.moveTo(fromX, fromY);
        context.lineTo(toX, toY);
        context.stroke();
      };
      context.save();
      context.lineWidth = ratio;
      context.font = `${10 * ratio}px system-ui, sans-serif`;
      context.textAlign = "left";
      context.textBaseline = "alphabetic";
      if (typeof data.level === "number") {
        const y = plot.valToPos(data.level, "y", true);
        context.strokeStyle = css("--bad");
        context.fillStyle = context.strokeStyle;
        context.setLineDash([6 * ratio, 3 * ratio]);
        line(left, y, left + width, y);
        const word = "threshold";
        context.fillText(word, left + width - context.measureText(word).width - 3 * ratio, y + 11 * ratio);
      }
      context.setLineDash([3 * ratio, 3 * ratio]);
      const ends = [left, left, left]; // of the labels in each of three rows
      for (const mark of data.marks || []) {
        const x = plot.valToPos(mark.at, "x", true);
        if (x < left || x > left + width) continue;
        context.strokeStyle = css(mark.tone === "bad" ? "--bad" : mark.tone === "ok" ? "--ok" : "--dim");
        context.fillStyle = context.strokeStyle;
        line(x, top, x, top + height);
        const long = context.measureText(mark.label).width + 3 * ratio;
        const start = Math.min(x + 3 * ratio, left + width - long);
        const row = ends.findIndex((end) => end <= start);
        if (row < 0) continue; // the line stays; the list of events has its text
        context.fillText(mark.label, start, top + (row + 1) * 10 * ratio);
        ends[row] = start + long;
      }
      context.restore();
    };
  }

  // 24 hours, in the viewer's zone; the day too where the chart has several.
  function clock(plot, found, _axis, _space, step) {
    const days = plot.scales.x.max - plot.scales.x.min > 86400;
    return found.map((at) => {
      const text = local(new Date(at * 1000));
      return step >= 86400 ? text.slice(5, 10) : step < 60 ? text.slice(11) : text.slice(days ? 5 : 11, 16);
    });
  }

  function options(element, data) {
    const grid = { stroke: css("--line"), width: 1 };
    const axis = { stroke: css("--dim"), grid, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const colours = data.series.length > 1 ? ["--arm-p", "--arm-c"] : ["--accent"];
    const time = !data.x;
    return {
      width: Math.max(element.clientWidth, 120),
      height: element.classList.contains("short") ? 90 : 130,
      legend: { show: false },
      cursor: { y: false, points: { size: 5 } },
      padding: [8, 4, 0, 0],
      scales: {
        x: { time, distr: time ? 1 : 3 },
        y: data.scale === "log"
          ? { distr: 3, range: (_, low, high) => [Math.min(low ?? 1, 1) / 1.5, Math.max(high ?? 1, data.level ?? 1) * 1.5] }
          : data.scale === "fit" ? {}
          : { range: (_, low, high) => [0, Math.max(high || 0, data.unit === "%" ? 1 : 0.1) * 1.1] },
      },
      axes: [
        { ...axis, space: 80, size: 22, values: time ? clock : (_, found) => found.map((v) => (v === null ? "" : `${v >= 1 ? Math.round(v) : v} ${data.x}`)) },
        { ...axis, ...(data.scale === "log" ? { grid: { ...grid, filter: (_, found) => found.map((v) => (Math.abs(Math.log10(v) - Math.round(Math.log10(v))) > 1e-9 ? null : v)) } } : {}), space: 28, size: 46, values: (_, found) => found.map((v) => (v === null ? "" : `${v}${data.unit}`)) },
      ],
      series: [{}, ...data.series.map((_, n) => ({
        label: data.names[n],
        stroke: css(colours[n]),
        dash: n ? [5, 3] : undefined,
        width: 1.6,
        spanGaps: true,
        points: { show: false },
      }))],
      hooks: { draw: [marks(data)], setCursor: [(plot) => readout(element, plot)] },
    };
  }

  // The values under the pointer, as text over the chart.
  function readout(element, plot) {
    const data = JSON.parse(element.dataset.chart);
    const out = element.querySelector(".readout");
    const n = plot.cursor.idx;
    if (!out) return;
    const x = n == null ? undefined : data.at[n];
    out.hidden = x === undefined;
    if (x === undefined) return;
    const place = data.x ? `${x} ${data.x}` : local(new Date(x * 1000));
    const values = data.series.map((line, arm) => `${data.names[arm]} ${line[n] ?? "–"}${data.unit}`);
    out.textContent = [place, ...values].join(" · ");
  }

  function draw(element) {
    if (typeof uPlot === "undefined") return;
    const raw = element.dataset.chart;
    const known = charts.get(element);
    if (known && known.raw === raw && known.plot.root.isConnected) return;
    const data = JSON.parse(raw);
    const values = [data.at, ...data.series];
    if (known && known.plot.root.isConnected && known.count === values.length) {
      known.raw = raw;
      known.plot.hooks.draw = [marks(data)];
      known.plot.setData(values);
      return;
    }
    if (known) known.plot.destroy();
    const out = document.createElement("p");
    out.className = "readout";
    out.hidden = true;
    element.replaceChildren(out);
    charts.set(element, { raw, count: values.length, plot: new uPlot(options(element, data), values, element) });
  }

  function redraw() {
    for (const [element, { plot }] of charts) {
      plot.destroy();
      charts.delete(element);
      if (element.isConnected) draw(element);
    }
  }

  function chartsIn(root) {
    for (const element of charts.keys()) {
      if (!element.isConnected) {
        charts.get(element).plot.destroy();
        charts.delete(element);
      }
    }
    for (const element of root.querySelectorAll("[data-chart]")) draw(element);
  }

  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (Math.abs(window.innerWidth - width) < 8) return;
    width = window.innerWidth;
    redraw();
  });

  // ---------------------------------------------------------------- fleet

  function arrange() {
    const table = document.getElementById("fleet");
    if (!table) return;
    const words = (document.getElementById("filter")?.value || "").toLowerCase().split(/\s+/).filter(Boolean);
    const order = document.getElementById("order")?.value || "rank";
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const name = (row) => row.dataset.name;
    const by = {
      rank: (a, b) => a.dataset.rank - b.dataset.rank || name(a).localeCompare(name(b)),
      name: (a, b) => name(a).localeCompare(name(b)),
      rate: (a, b) => b.dataset.rate - a.dataset.rate || name(a).localeCompare(name(b)),
      stage: (a, b) => a.dataset.stage.localeCompare(b.dataset.stage) || name(a).localeCompare(name(b)),
      owner: (a, b) => a.dataset.owner.localeCompare(b.dataset.owner) || name(a).localeCompare(name(b)),
    }[order];
    const sorted = [...rows].sort(by);
    let shown = 0;
    if (sorted.some((row, n) => row !== rows[n])) {
      const focused = document.activeElement;
      body.append(...sorted);
      if (body.contains(focused)) focused.focus();
    }
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    const none = document.getElementById("no-match");
    if (none) none.hidden = shown > 0;
  }
  const arranged = ["filter", "order"];
  document.addEventListener("input", (event) => {
    if (!arranged.includes(event.target.id)) return;
    try { sessionStorage.setItem(`kedge-${event.target.id}`, event.target.value); } catch { /* not kept */ }
    arrange();
  });
  for (const id of arranged) { // as it was before the viewer opened an endpoint
    const field = document.getElementById(id);
    try { if (field) field.value = sessionStorage.getItem(`kedge-${id}`) ?? field.value; } catch { /* not kept */ }
  }

  // ---------------------------------------------------------------- stream

  function show() {
    if (!state) return;
    const waited = Math.round((ticks() - heard) / 1000);
    const stream = document.getElementById("stream");
    const live = connected && ticks() - heard <= SILENT_MS;
    const stale = Boolean(document.querySelector("#stale [role=alert]"));
    const text = !stream ? "" : stale && live ? "last state" : live ? "live" : waited < 3 ? "connecting" : "reconnecting";
    // A screen reader reads the word when it changes; the seconds beside it are for eyes.
    const since = text === "reconnecting" ? `, no update for ${waited} s` : "";
    if (state.textContent !== text) state.textContent = text;
    silence.textContent = since;
    state.parentElement.className = `state ${text === "live" ? "ok" : text === "" || text === "connecting" ? "" : "bad"}`;
  }
  function listen(name, work) {
    document.addEventListener(name, work);
  }
  listen("htmx:sse:after:connection", () => { connected = true; heard = ticks(); show(); });
  listen("htmx:sse:error", (event) => {
    connected = false;
    if (event.detail?.status === 401) location.reload(); // the session has ended
    show();
  });
  listen("htmx:sse:close", () => { connected = false; show(); });
  listen("htmx:sse:before:message", () => { connected = true; heard = ticks(); });
  listen("pulse", (event) => {
    server = { now: JSON.parse(event.detail.data).now, at: ticks() };
    show();
  });
  listen("ended", () => location.reload());
  listen("htmx:after:swap", () => refresh());

  function refresh() {
    restore();
    times(document);
    chartsIn(document);
    arrange();
    show();
  }

  // ---------------------------------------------------------------- writes

  // A write needs a header that no other site can send, so that forms go through here.
  let sending = false;
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (form.method !== "post" || form.dataset.plain !== undefined) return;
    event.preventDefault();
    if (sending) return;
    sending = true;
    const fields = new URLSearchParams(new FormData(form));
    const button = form.querySelector("button[type=submit]");
    button?.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(form.action, {
        method: "POST",
        body: fields,
        headers: { "kedge-csrf": fields.get("csrf") || "" },
      });
      if (answer.ok && answer.redirected) {
        location.replace(answer.url); // back leads to the page before the form, not to a new form
        return;
      }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const content = document.getElementById("content");
      document.getElementById("stream")?.remove(); // what is shown now is the answer
      content.replaceChildren(...(page.getElementById("content") || page.body).childNodes);
      content.focus();
      refresh();
    } catch {
      for (const old of form.querySelectorAll("[data-unanswered]")) old.remove();
      const note = document.createElement("p");
      note.className = "trouble bad";
      note.dataset.unanswered = "";
      note.setAttribute("role", "alert");
      note.textContent = "The server did not answer. You can send this again: it is carried out once.";
      form.prepend(note);
    } finally {
      sending = false;
      button?.removeAttribute("aria-busy");
    }
  });

  // ---------------------------------------------------------------- drafts

  // What a person typed outlives the end of a session: this tab keeps it until the command is done.
  const PREFIX = "kedge-draft:";
  const kept = (name) => [...document.querySelectorAll(`form[data-draft="${CSS.escape(name)}"] input[type="text"]`)];
  function keep(form) {
    const typed = kept(form.dataset.draft).filter((field) => field.value);
    try {
      sessionStorage.setItem(PREFIX + form.dataset.draft, JSON.stringify(typed.map((field) => [field.name, field.value])));
    } catch { /* storage is off: nothing is kept */ }
  }
  function restore() {
    try {
      for (const sent of document.querySelectorAll("[data-sent]")) sessionStorage.removeItem(PREFIX + sent.dataset.sent);
      for (const form of document.querySelectorAll("form[data-draft]")) {
        const typed = new Map(JSON.parse(sessionStorage.getItem(PREFIX + form.dataset.draft) || "[]"));
        for (const field of kept(form.dataset.draft)) {
          if (field.value || !typed.has(field.name)) continue;
          field.value = typed.get(field.name);
          field.closest("details")?.setAttribute("open", "");
        }
      }
    } catch { /* storage is off, or was changed by hand */ }
  }
  document.addEventListener("input", (event) => {
    const form = event.target.form;
    if (form?.dataset.draft) keep(form);
  });

  // ---------------------------------------------------------------- theme

  const system = window.matchMedia("(prefers-color-scheme: dark)");
  document.getElementById("theme")?.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("kedge-theme", root.dataset.theme); } catch { /* not kept */ }
    redraw();
  });
  system.addEventListener("change", redraw);

  setInterval(() => { times(document); show(); }, 1000);
  refresh();
})();
