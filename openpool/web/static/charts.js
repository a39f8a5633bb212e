// Draws every .chart of the page from one series request, and again after ticks.
(() => {
  const nodes = [...document.querySelectorAll(".chart[data-chart]")];
  if (!nodes.length) return;
  const EVERY_MS = 10_000;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const digits = (v, n) => Number(v.toPrecision(n)).toLocaleString("en", { maximumSignificantDigits: n }).replaceAll(",", "\u202f");

  const unit = (top) => (top >= 1e-4 ? [1, "ETH"] : [1e9, "gwei"]);
  const eth = (v) => {
    const [factor, name] = unit(Math.abs(v));
    return `${digits(v * factor, 4)}\u202f${name}`;
  };
  // One unit for all ticks of an axis, so that they compare.
  const scaled = (ticks) => {
    const [factor, name] = unit(Math.max(...ticks.map(Math.abs)));
    return ticks.map((t) => (t ? `${digits(t * factor, 3)}\u202f${name}` : "0"));
  };

  // What each chart shows: a list of [label, colour, value of a point].
  const perSecond = (key) => (p, step) => p[key] / step;
  const wei = (key) => (p) => Number(p[key]) / 1e18;
  const rate = (up, down, scale) => (p) => (p[down] ? (p[up] / p[down]) * scale : null);
  const KINDS = {
    segments: {
      bars: true,
      text: (v) => `${digits(v, 3)}/s`,
      lines: [["delivered", "--c1", perSecond("segments")], ["failed", "--bad", (p, step) => (p.failed ? p.failed / step : null)]],
    },
    rtf: { text: (v) => `${digits(v, 3)}×`, lines: [["real-time factor", "--c2", rate("busy_ms", "media_ms", 1)]] },
    latency: { text: (v) => `${digits(v, 3)} s`, lines: [["round trip", "--c4", rate("latency_ms", "segments", 0.001)]] },
    earnings: {
      fill: true,
      axis: scaled,
      text: eth,
      lines: [["fees", "--c2", wei("fee_wei")], ["to workers", "--c1", wei("worker_wei")]],
    },
    calls: {
      bars: true,
      text: (v) => `${digits(v, 3)}/s`,
      lines: [["answered", "--c1", perSecond("calls")], ["failed", "--bad", (p, step) => (p.calls_failed ? p.calls_failed / step : null)]],
    },
    calltime: { text: (v) => `${digits(v, 3)} s`, lines: [["time of a call", "--c4", rate("call_ms", "calls", 0.001)]] },
    credited: { fill: true, axis: scaled, text: eth, lines: [["credited", "--c1", wei("worker_wei")]] },
  };

  // Fees by pipeline: the first four have a line of their own, the others are one.
  const COLOURS = ["--c1", "--c2", "--c3", "--c4"];
  const byPipeline = ({ pipelines }) => {
    const fee = (i) => (p) => Number(p.fee_wei[i] || 0) / 1e18;
    const lines = pipelines.slice(0, 4).map((name, i) => [name, COLOURS[i], fee(i)]);
    const rest = pipelines.slice(4).map((_, i) => fee(i + 4));
    if (rest.length) lines.push(["others", "--dim", (p) => rest.reduce((sum, one) => sum + one(p), 0)]);
    if (!lines.length) lines.push(["none yet", "--dim", () => 0]);
    return { axis: scaled, text: eth, lines };
  };
  const legend = (node, kind) => {
    const box = document.createElement("span");
    box.className = "legend";
    for (const [label, colour] of kind.lines) {
      const entry = document.createElement("span");
      const mark = document.createElement("i");
      mark.className = { "--c2": "c2", "--c3": "c3", "--c4": "c4", "--dim": "other" }[colour] || "";
      entry.append(mark, label);
      box.append(entry);
    }
    const header = node.closest(".panel").querySelector("header");
    header.querySelector(".legend")?.remove();
    header.append(box);
  };

  const pad = (n) => String(n).padStart(2, "0");
  const clock = (s) => {
    const d = new Date(s * 1000);
    return `${d.getDate()} ${d.toLocaleString("en", { month: "short" })} ${pad(d.getHours())}:${pad(d.getMinutes())}`;
  };

  const tip = (kind) => {
    let box = null;
    return {
      hooks: {
        init: (u) => { box = document.createElement("div"); box.className = "tip"; box.hidden = true; u.over.append(box); },
        setCursor: (u) => {
          const i = u.cursor.idx;
          const shown = i != null && u.cursor.left >= 0;
          box.hidden = !shown;
          if (!shown) return;
          const rows = kind.lines
            .map(([label], k) => [label, u.data[k + 1][i]])
            .filter(([, v]) => v != null)
            .map(([label, v]) => `${label} ${kind.text(v)}`);
          box.textContent = [clock(u.data[0][i]), ...(rows.length ? rows : ["nothing"])].join(" · ");
          const left = Math.min(u.cursor.left + 12, u.over.clientWidth - box.offsetWidth);
          box.style.left = `${Math.max(0, left)}px`;
          box.style.top = "4px";
        },
      },
    };
  };

  const axisBase = () => ({
    stroke: css("--dim"),
    font: "12px system-ui, sans-serif",
    grid: { stroke: css("--grid"), width: 1 },
    ticks: { show: false },
  });

  const options = (node, kind, points) => ({
    width: node.clientWidth,
    height: node.clientHeight,
    padding: [8, 12, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
    scales: { y: { range: (u, min, max) => [0, max > 0 ? max * 1.15 : 1] } },
    axes: [
      { ...axisBase(), grid: { show: false }, size: 26, space: 70, values: times },
      {
        ...axisBase(),
        size: kind.axis ? 82 : 48,
        space: 36,
        values: (u, ticks) => (kind.axis ? kind.axis(ticks) : ticks.map((t) => digits(t, 3))),
      },
    ],
    series: [{}, ...kind.lines.map((line, k) => look(line, kind, k, node.clientWidth / points))],
    plugins: [tip(kind)],
  });

  const times = (u, ticks, _axis, _space, step) =>
    ticks.map((t) => {
      const d = new Date(t * 1000);
      if (step >= 86400) return `${d.getDate()} ${d.toLocaleString("en", { month: "short" })}`;
      return `${pad(d.getHours())}:${pad(d.getMinutes())}`;
    });

  const look = ([label, colour], kind, k, room) => {
    const stroke = css(colour);
    const base = { label, stroke, width: 1.75, points: { show: false }, spanGaps: false };
    if (label === "failed") return { ...base, width: 0, points: { show: true, size: 5, fill: stroke } };
    if (kind.bars && room > 6) return { ...base, width: 0, fill: stroke, paths: uPlot.paths.bars({ size: [0.7, 24] }) };
    if (kind.bars || kind.fill) return { ...base, fill: stroke + (k === 0 && kind.lines.length > 1 ? "14" : "2e") };
    return base;
  };

  const say = (node, text) => {
    node.querySelector(".chart-empty")?.remove();
    if (!text) return;
    const note = document.createElement("p");
    note.className = "chart-empty";
    note.textContent = text;
    node.append(note);
  };

  // Whoever cannot see the lines is told where they end, and how high they go.
  const tell = (node, kind, columns) => {
    node.dataset.title ||= node.getAttribute("aria-label");
    const said = kind.lines.map(([label], k) => {
      const values = columns[k + 1].filter((value) => value != null);
      return values.length ? `; ${label} ${kind.text(values.at(-1))}, at most ${kind.text(Math.max(...values))}` : "";
    });
    node.setAttribute("aria-label", node.dataset.title + said.join(""));
  };

  const charts = new Map();
  const draw = (node, series) => {
    const kind = node.dataset.chart === "pipelines" ? byPipeline(series) : KINDS[node.dataset.chart];
    if (node.dataset.chart === "pipelines") legend(node, kind);
    const columns = [
      series.points.map((p) => p.start_ms / 1000),
      ...kind.lines.map(([, , value]) => series.points.map((p) => value(p, series.step_s))),
    ];
    const nothing = columns.slice(1).every((values) => values.every((value) => !value));
    say(node, nothing ? "Nothing in this span of time." : "");
    tell(node, kind, columns);
    const old = charts.get(node);
    if (nothing) { if (old) old.destroy(); charts.delete(node); return; }
    if (old && old.series.length === columns.length) return old.setData(columns);
    if (old) old.destroy();
    charts.set(node, new uPlot(options(node, kind, columns[0].length), columns, node));
  };

  const skew = Date.now() - Number(document.body.dataset.now);
  const question = (node) => {
    const { span, step, worker } = node.dataset;
    // The last step ends at a whole minute, or quarter of an hour, so that it is complete.
    const grain = (step % 900 ? 60 : 900) * 1000;
    const end = Math.floor((Date.now() - skew) / grain) * grain;
    const query = new URLSearchParams({ start_ms: end - span * 1000, end_ms: end, step, worker });
    if (node.dataset.chart === "pipelines") query.delete("worker");
    return `/api/v1/series${node.dataset.chart === "pipelines" ? "/pipelines" : ""}?${query}`;
  };

  const last = new Map();
  let loadedAt = 0;
  const load = async () => {
    if (Date.now() - loadedAt < EVERY_MS) return;
    loadedAt = Date.now();
    // All charts of a page show the same span, so one answer serves all that ask the same.
    const asked = new Map();
    for (const node of nodes) {
      const url = question(node);
      asked.set(url, [...(asked.get(url) || []), node]);
    }
    try {
      for (const [url, askers] of asked) {
        const answer = await fetch(url);
        if (!answer.ok) return;
        const series = await answer.json();
        askers.forEach((node) => { last.set(node, series); draw(node, series); });
      }
    } catch { return; }
    document.body.dataset.charts = "drawn";
  };

  document.body.addEventListener("pool:tick", load);
  document.addEventListener("pool:theme", () => {
    for (const [node, chart] of charts) { chart.destroy(); charts.delete(node); draw(node, last.get(node)); }
  });
  new ResizeObserver(() => {
    for (const [node, chart] of charts) chart.setSize({ width: node.clientWidth, height: node.clientHeight });
  }).observe(document.querySelector("main"));
  load();
})();
