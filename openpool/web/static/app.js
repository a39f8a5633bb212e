// The live part of every page: one event stream, whose ticks refresh what htmx watches.
// Without this script all pages still work; they only stand still.
(() => {
  const body = document.body;
  const dot = document.querySelector(".live-dot");
  let source = null;
  let paused = false;

  const say = (state, text) => {
    if (!dot) return;
    dot.dataset.state = state;
    dot.textContent = text;
  };

  const open = () => {
    if (source || paused || document.hidden || !body.dataset.live) return;
    source = new EventSource(body.dataset.live);
    source.onopen = () => say("on", "Live");
    source.onerror = () => say("off", "Reconnecting");
    source.addEventListener("tick", () => {
      say("on", "Live");
      body.dispatchEvent(new Event("pool:tick"));
    });
  };

  const close = () => { if (source) source.close(); source = null; };

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return close();
    open();
    body.dispatchEvent(new Event("pool:tick"));
  });
  addEventListener("pagehide", close);

  // Relative times grow older by themselves; the steps are those of web/format.py.
  const thin = "\u202f";
  const span = (s) => {
    if (s < 120) return `${s}${thin}s`;
    const min = Math.floor(s / 60);
    if (min < 60) return `${min}${thin}min`;
    const h = Math.floor(min / 60);
    if (h < 24) return `${h}${thin}h` + (min % 60 ? ` ${min % 60}${thin}min` : "");
    const d = Math.floor(h / 24);
    return `${d}${thin}d` + (h % 24 ? ` ${h % 24}${thin}h` : "");
  };
  const skew = Date.now() - Number(body.dataset.now || Date.now());
  const age = () => {
    const now = Date.now() - skew;
    for (const el of document.querySelectorAll("time[data-ms]")) {
      const s = Math.floor((now - Number(el.dataset.ms)) / 1000);
      if (s >= 0) el.textContent = s < 5 ? "just now" : `${span(s)} ago`;
    }
  };
  setInterval(age, 5000);

  document.addEventListener("click", async (click) => {
    const button = click.target.closest("button[data-do]");
    if (!button) return;
    const what = button.dataset.do;
    if (what === "theme") window.toggleTheme();
    if (what === "pause") {
      paused = !paused;
      button.textContent = paused ? "Resume" : "Pause";
      button.setAttribute("aria-pressed", String(paused));
      if (paused) { close(); say("", "Paused"); } else { open(); body.dispatchEvent(new Event("pool:tick")); }
    }
    if (what === "copy") {
      const text = button.closest(".command").querySelector("pre").textContent.trim();
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(button.closest(".command").querySelector("pre"));
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    }
  });

  document.addEventListener("submit", (submit) => {
    const question = submit.target.dataset.ask;
    if (question && !confirm(question)) submit.preventDefault();
  });
  document.addEventListener("change", (change) => {
    if (change.target.matches("select[data-submit]")) change.target.form.requestSubmit();
  });

  // On a narrow screen the tabs scroll: the one of this page is brought into view.
  const nav = document.querySelector(".nav");
  const here = nav.querySelector("[aria-current]");
  if (here) nav.scrollLeft = here.offsetLeft - nav.offsetLeft - (nav.clientWidth - here.offsetWidth) / 2;

  open();
})();
