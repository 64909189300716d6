"use strict";
// Parts for every page; a page's own script follows in the same element and finds them in `kit`.
const kit = (() => {
  document.documentElement.classList.add("live");

  const count = (value) => value.toLocaleString("en-US");
  const part = (root, name) => root.querySelector(`[data-part="${name}"]`);
  const data = (id) => JSON.parse(document.getElementById(id).textContent);
  const pressed = (button) => button.getAttribute("aria-pressed") === "true";
  const press = (button, on) => button.setAttribute("aria-pressed", String(on));

  // Buttons with data-filter="all" or another kind, and aria-pressed: an item stays visible where it matches any
  // pressed button; none pressed shows all. matches(item, button's dataset); each item has its `element`.
  const filter = (buttons, items, matches, report) => {
    const all = buttons.find((button) => button.dataset.filter === "all");
    const apply = () => {
      const chosen = buttons.filter((button) => button !== all && pressed(button));
      press(all, chosen.length === 0);
      let shown = 0;
      for (const item of items) {
        item.element.hidden = chosen.length > 0 && !chosen.some((button) => matches(item, button.dataset));
        shown += item.element.hidden ? 0 : 1;
      }
      report(shown);
    };
    for (const button of buttons) {
      button.addEventListener("click", () => {
        if (button === all) buttons.forEach((other) => press(other, false));
        else press(button, !pressed(button));
        apply();
      });
    }
  };

  return { count, part, data, pressed, press, filter };
})();
