(() => {
  const { count, part, pressed } = kit;

  // Thresholds: every slider looks its counts up in a table made for all its stops.
  const sweeps = kit.data("sweeps");
  const readable = (value, decimals) => {
    const fixed = value.toFixed(decimals);
    return (Number(fixed) === value ? value.toString() : fixed).replace("-", "−");
  };
  for (const card of document.querySelectorAll("[data-rule]")) {
    const tables = sweeps[card.dataset.rule];
    const plot = card.querySelector(".histogram");
    const sliders = [...card.querySelectorAll(".slider")];
    const position = (table, stop) => {
      const [low, high] = table.axis;
      const value = table.stops[stop];
      const whole = table.bound === "min" ? Math.ceil(value) - 0.5 : Math.floor(value) + 0.5;
      return (((table.whole ? whole : value) - low) / (high - low)) * plot.viewBox.baseVal.width;
    };
    const redraw = () => {
      const edge = { min: 0, max: plot.viewBox.baseVal.width };
      sliders.forEach((box, i) => {
        const table = tables[i];
        edge[table.bound] = position(table, box.querySelector("input").valueAsNumber);
        part(plot, table.bound).setAttribute("d", `M${edge[table.bound]} 0V${plot.viewBox.baseVal.height - 1}`);
      });
      part(plot, "in").setAttribute("x", edge.min);
      part(plot, "in").setAttribute("width", Math.max(0, edge.max - edge.min));
    };
    sliders.forEach((box, i) => {
      const table = tables[i];
      const input = box.querySelector("input");
      const reset = part(box, "reset");
      const update = () => {
        const stop = input.valueAsNumber;
        const value =
          stop === table.at ? box.dataset.threshold : readable(table.stops[stop], Number(box.dataset.decimals));
        const change = table.overall[stop] - table.overall[table.at];
        const unscored = table.unscored[stop] - table.unscored[table.at];
        part(box, "value").textContent = value;
        part(box, "alone").textContent = count(table.alone[stop]);
        part(box, "overall").textContent = count(table.overall[stop]);
        part(box, "change").textContent =
          (stop === table.at ? "" : ` (${change < 0 ? "−" : "+"}${count(Math.abs(change))})`) +
          (unscored > 0 ? `, ${count(unscored)} more not scored yet` : "");
        input.setAttribute("aria-valuetext", value);
        reset.hidden = stop === table.at;
        redraw();
      };
      input.addEventListener("input", () => {
        // Each count stands for one bound moved alone, so the rule's other slider goes back to its threshold.
        sliders.forEach((other, k) => {
          const slider = other.querySelector("input");
          if (k !== i && slider.valueAsNumber !== tables[k].at) {
            slider.value = tables[k].at;
            slider.dispatchEvent(new Event("settle"));
          }
        });
        update();
      });
      input.addEventListener("settle", update);
      reset.addEventListener("click", () => {
        input.value = table.at;
        update();
        input.focus();
      });
      update();
    });
  }

  // Gallery.
  const buttons = [...document.querySelectorAll("#filters [data-filter]")];
  const tiles = [...document.querySelectorAll(".tile")].map((element) => ({
    element,
    verdict: element.dataset.verdict,
    reasons: JSON.parse(element.dataset.reasons),
  }));
  const matches = (tile, { filter: kind, name }) =>
    kind === "verdict" ? tile.verdict === name : tile.reasons.includes(name);
  kit.filter(buttons, tiles, matches, (shown) => {
    document.getElementById("showing").textContent = `${count(shown)} shown`;
    document.getElementById("nothing").hidden = shown > 0;
  });

  // An opened tile takes a whole row of the grid, which may be the next one.
  for (const details of document.querySelectorAll(".tile details")) {
    details.addEventListener("toggle", () => details.open && details.scrollIntoView({ block: "nearest" }));
  }

  const play = document.getElementById("play");
  play.addEventListener("click", () => {
    kit.press(play, !pressed(play));
    document.getElementById("tiles").classList.toggle("playing", pressed(play));
  });
})();
