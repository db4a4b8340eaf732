// For those who hear the page, or use no mouse: what Django leaves without a name or out of reach.
"use strict";

// Select2 draws in place of a list, as the page loads and after jQuery is ready: each drawing gets the list's label.
function nameDrawings() {
  for (const list of document.querySelectorAll("select.admin-autocomplete")) {
    const name = list.labels[0]?.textContent.replace(":", "").trim();
    const drawn = list.nextElementSibling?.querySelectorAll("[role=combobox], [role=textbox]") ?? [];
    for (const part of drawn) part.setAttribute("aria-label", name);
  }
}

document.addEventListener("DOMContentLoaded", () => {
  // A wide table scrolls in its own box, by the arrow keys too.
  for (const box of document.querySelectorAll(".inline-group .tabular, #changelist-form .results")) box.tabIndex = 0;
  // Its label is a picture, which a help text beside it silences.
  document.getElementById("searchbar")?.setAttribute("aria-label", "Search");
  // The filter for rows in which nothing stands.
  for (const link of document.querySelectorAll("#changelist-filter a"))
    if (!link.textContent.trim()) link.textContent = "none";
  new MutationObserver(nameDrawings).observe(document.body, { childList: true, subtree: true });
  nameDrawings();
});
