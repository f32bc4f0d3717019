// Loaded before the page is painted, so that a chosen theme does not flash. A browser may forbid storage.
try {
  document.documentElement.dataset.theme = localStorage.getItem("granule.theme") ?? "auto";
} catch {
  document.documentElement.dataset.theme = "auto";
}
