// Chooses the theme before the first paint: the visitor's choice, else the system's.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let saved = null;
  try { saved = localStorage.getItem("openpool-theme"); } catch { /* storage may be off */ }
  const apply = () => { root.dataset.theme = saved || (dark.matches ? "dark" : "light"); };
  apply();
  dark.addEventListener("change", apply);
  window.toggleTheme = () => {
    saved = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("openpool-theme", saved); } catch { /* this page only */ }
    apply();
    document.dispatchEvent(new Event("pool:theme"));
  };
})();
