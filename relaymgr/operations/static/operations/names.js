// What select2 draws in place of a list has no name for those who hear the page: it gets that of the list's label.
"use strict";

window.addEventListener("load", () => {
  for (const list of document.querySelectorAll("select.admin-autocomplete")) {
    const name = list.labels[0]?.textContent.replace(":", "").trim();
    const drawn = list.nextElementSibling?.querySelectorAll("[role=combobox], [role=textbox]") ?? [];
    for (const part of drawn) part.setAttribute("aria-label", name);
  }
});
