// Beside htmx, for the live parts of a page (admin/live.html): they rest in a hidden tab, and the page says when the
// manager does not answer.
"use strict";

(() => {
  let heardAt = new Date();

  document.addEventListener("htmx:beforeRequest", (event) => {
    if (document.hidden) event.preventDefault();
  });

  document.addEventListener("htmx:beforeSwap", (event) => {
    // A session that has expired is sent on to the login page, which is no part of this one.
    const asked = new URL(event.detail.pathInfo.requestPath, location.href);
    if (new URL(event.detail.xhr.responseURL).pathname === asked.pathname) return;
    event.detail.shouldSwap = false;
    location.reload();
  });

  document.addEventListener("htmx:afterRequest", (event) => {
    const notice = document.getElementById("unreachable");
    notice.hidden = event.detail.successful;
    if (event.detail.successful) heardAt = new Date();
    else notice.querySelector("time").textContent = `${heardAt.toISOString().slice(11, 19)} UTC`;
  });
})();
