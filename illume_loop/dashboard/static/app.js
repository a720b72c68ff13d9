// Four things that HTML cannot do: reload on news, filter by what was chosen early, take keys, and cycle through the
// states of a criterion.
"use strict";

// News: the server sends a new mark when something has changed; then the parts of the page that listen to "live" reload.
const body = document.body;
if (body.dataset.live) {
  let seen = body.dataset.mark;
  const events = new EventSource(body.dataset.live);
  events.addEventListener("mark", (event) => {
    if (event.data === seen) return;
    seen = event.data;
    htmx.trigger(body, "live");
  });
  window.addEventListener("pagehide", () => events.close());
}

// Filters: what a person chose before htmx listened (a slow network) takes effect as soon as it does.
const sent = (field) => (field.matches("select") ? (field.querySelector("[selected]") ?? field[0]).value : field.defaultValue);
body.addEventListener("htmx:load", (event) => {
  if (event.target !== body) return;
  for (const form of document.querySelectorAll("form.filters")) {
    const fields = [...form.querySelectorAll("select, input")];
    if (fields.some((field) => field.value !== sent(field))) htmx.trigger(form, "change");
  }
});
// Keys: pressing the key of an element with data-key clicks it, or focuses it if it is a field. Escape leaves a field.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const field = event.target.closest("input:not([type=radio]), textarea, select");
  if (field) {
    if (event.key === "Escape") field.blur();
    return;
  }
  const target = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!target) return;
  event.preventDefault();
  if (target.matches("textarea, input")) target.focus();
  else target.click();
});

// Criteria: each press of the button moves on, from undecided to wrong to right and back to undecided.
const STEPS = ["", "disagree", "agree"];
const WORDS = { "": "not decided", disagree: "wrong", agree: "right" };
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-criterion]");
  if (!button) return;
  const input = button.querySelector("input");
  const step = STEPS[(STEPS.indexOf(button.dataset.state) + 1) % STEPS.length];
  button.dataset.state = step;
  input.value = `${button.dataset.criterion}=${step}`;
  button.querySelector("[data-word]").textContent = WORDS[step];
});
