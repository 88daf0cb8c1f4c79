// Before the first paint: the theme that the viewer chose. Without a choice the system's is used.
(() => {
  "use strict";
  try {
    const chosen = localStorage.getItem("kedge-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch { /* storage is off: the system's theme is used */ }
})();
