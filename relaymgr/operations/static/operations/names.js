// What select2 draws in place of a list has no name for those who hear the page: it gets that of the list's label.
// By jQuery's own queue, in which the drawing stands before this.
"use strict";

window.django?.jQuery?.(() => {
  for (const list of document.querySelectorAll("select.admin-autocomplete")) {
    const name = list.labels[0]?.textContent.replace(":", "").trim();
    const drawn = list.nextElementSibling?.querySelectorAll("[role=combobox], [role=textbox]") ?? [];
    for (const part of drawn) part.setAttribute("aria-label", name);
  }
});
