// Three things that HTML cannot do: hear of news, take keys, and tell which criteria were decided.
"use strict";

// News: the server sends a mark when there is something new; the parts of the page that listen to "live" load again.
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

// Keys: an element with data-key is clicked, or focused where it is a field, when its key is pressed outside of fields.
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

// Criteria: each press of the button goes on from undecided to no, then to yes.
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
