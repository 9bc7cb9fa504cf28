// Browses the completions, and opens what is folded before printing. Texts enter the page as texts, never as HTML.
"use strict";
(() => {
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = one.open || !one.closest(".example"); }));
  const element = document.getElementById("data");
  if (!element) return;
  const data = JSON.parse(element.textContent), PAGE = 10;
  const controls = document.getElementById("controls"), list = document.getElementById("examples");
  const more = document.getElementById("more"), found = document.getElementById("found");
  const model = list.querySelector("article").cloneNode(true);
  const fields = controls.elements, last = data.columns.length - 1;
  let shown = PAGE;
  data.rows.forEach((one) => {
    one.all = [one.id, one.task, one.template, one.prompt, ...one.references, ...one.texts].join("\n").toLowerCase();
  });

  const option = (select, text) => select.append(Object.assign(document.createElement("option"), { value: text, textContent: text }));
  const tasks = [...new Set(data.rows.map((one) => one.task).filter(Boolean))].sort();
  tasks.forEach((task) => option(fields.task, task));
  fields.task.parentElement.hidden = !tasks.length;
  fields.from.parentElement.hidden = fields.to.parentElement.hidden = last < 2;
  if (!last) ["gain", "loss"].forEach((name) => fields.sort.querySelector(`[value=${name}]`).remove());

  const number = (value) => (value === null ? "–" : value.toFixed(2));
  const to = (one) => one.scores[+fields.to.value], from = (one) => one.scores[+fields.from.value];
  const KEYS = {
    gain: (one) => (to(one) === null || from(one) === null ? null : to(one) - from(one)),
    loss: (one) => (to(one) === null || from(one) === null ? null : from(one) - to(one)),
    best: to,
    worst: (one) => (to(one) === null ? null : -to(one)),
  };

  const article = (one) => {
    const made = model.cloneNode(true), boxes = made.querySelectorAll(".texts > div");
    made.querySelector("h3").textContent = [one.id, one.task, one.template].filter(Boolean).join(" · ");
    data.columns.forEach((name, i) => {
      boxes[i].querySelector("h4").textContent = `${name} ${number(one.scores[i])}`;
      boxes[i].querySelector("p").textContent = one.texts[i] === null ? "–" : one.texts[i];
    });
    boxes[boxes.length - 1].querySelector("p").textContent = one.references.join("\n\n");
    made.querySelector("details").open = false;
    made.querySelector("pre").textContent = one.prompt;
    return made;
  };

  const show = () => {
    const words = fields.search.value.toLowerCase(), task = fields.task.value, key = KEYS[fields.sort.value];
    let rows = data.rows.filter((one) => one.all.includes(words) && (!task || one.task === task));
    if (key) rows = rows.filter((one) => key(one) !== null).sort((one, other) => key(other) - key(one));
    list.replaceChildren(...rows.slice(0, shown).map(article));
    more.hidden = rows.length <= shown;
    found.textContent = `${Math.min(shown, rows.length)} of ${rows.length} examples`;
  };
  controls.addEventListener("input", () => { shown = PAGE; show(); });
  controls.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { shown += PAGE; show(); });
  controls.hidden = false;
  show();
})();
