// The browser's part: times in the viewer's zone, charts, filter and order, theme, and the state
// of the stream. The server renders everything else.
(() => {
  "use strict";

  const SILENT_MS = 12000; // the server sends a pulse every 5 s
  const state = document.getElementById("state");
  let ahead = Date.now() / 1000 - Number(document.body.dataset.now); // of the server's clock
  let heard = Date.now();
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
    return Date.now() / 1000 - ahead;
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
      context.save();
      context.lineWidth = devicePixelRatio;
      for (const mark of data.marks || []) {
        const x = plot.valToPos(mark.at, "x", true);
        if (x < left || x > left + width) continue;
        context.strokeStyle = css(mark.tone === "bad" ? "--bad" : mark.tone === "ok" ? "--ok" : "--dim");
        context.fillStyle = context.strokeStyle;
        context.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
        context.beginPath();
        context.moveTo(x, top);
        context.lineTo(x, top + height);
        context.stroke();
        context.setLineDash([]);
        context.font = `${10 * devicePixelRatio}px system-ui, sans-serif`;
        context.fillText(mark.label, x + 3 * devicePixelRatio, top + 10 * devicePixelRatio);
      }
      context.restore();
    };
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
          ? { distr: 3 }
          : { range: (_, low, high) => [0, Math.max(high || 0, data.unit === "%" ? 1 : 0.1) * 1.1] },
      },
      axes: [
        { ...axis, space: 70, size: 22, values: time ? undefined : (_, found) => found.map((v) => (v === null ? "" : `${v >= 1 ? Math.round(v) : v} ${data.x}`)) },
        { ...axis, space: 28, size: 46, values: (_, found) => found.map((v) => (v === null ? "" : `${v}${data.unit}`)) },
      ],
      series: [{}, ...data.series.map((_, n) => ({
        label: data.names[n],
        stroke: css(colours[n]),
        dash: n ? [5, 3] : undefined,
        width: 1.6,
        spanGaps: true,
        points: { show: false },
      }))],
      hooks: { draw: [marks(data)] },
    };
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
    element.replaceChildren();
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
    }[order];
    const sorted = [...rows].sort(by);
    if (sorted.some((row, n) => row !== rows[n])) {
      const focused = document.activeElement;
      body.append(...sorted);
      if (body.contains(focused)) focused.focus();
    }
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  }
  document.addEventListener("input", (event) => {
    if (event.target.id === "filter" || event.target.id === "order") arrange();
  });

  // ---------------------------------------------------------------- stream

  function show() {
    if (!state) return;
    const silent = Date.now() - heard > SILENT_MS;
    const live = connected && !silent;
    const stream = document.getElementById("stream");
    const waited = Math.round((Date.now() - heard) / 1000);
    const text = !stream ? "" : live ? "live" : waited < 3 ? "connecting" : `reconnecting, no update for ${waited} s`;
    if (state.textContent !== text) state.textContent = text;
    state.className = `state ${!stream || waited < 3 && !live ? "" : live ? "ok" : "bad"}`;
  }
  function listen(name, work) {
    document.addEventListener(name, work);
  }
  listen("htmx:sse:after:connection", () => { connected = true; heard = Date.now(); show(); });
  listen("htmx:sse:error", (event) => {
    connected = false;
    if (event.detail?.status === 401) location.reload(); // the session has ended
    show();
  });
  listen("htmx:sse:close", () => { connected = false; show(); });
  listen("htmx:sse:before:message", () => { connected = true; heard = Date.now(); });
  listen("pulse", (event) => {
    const now = JSON.parse(event.detail.data).now;
    ahead = Date.now() / 1000 - now;
    show();
  });
  listen("ended", () => location.reload());
  listen("htmx:after:swap", () => refresh());
  // What a person opened stays open: the server renders it closed.
  listen("htmx:before:morph:attr", (event) => {
    if (event.target.tagName === "DETAILS" && event.detail.attrName === "open") event.preventDefault();
  });

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
