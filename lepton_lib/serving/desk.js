"use strict";
// The desk: turns the form into one record, asks /v1/predict, and shows what comes back. Text only, never HTML.
const form = document.getElementById("desk");
const answer = document.getElementById("answer");
const fields = [...form.querySelectorAll("[data-kind]")];

function valueOf(field) {
  if (field.value === "") return null;
  return field.dataset.kind === "number" ? Number(field.value) : field.value;
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function show(...parts) {
  answer.replaceChildren(...parts);
  answer.focus();
}

function percent(share) {
  return (100 * share).toFixed(1) + " %";
}

function showPrediction(reply) {
  const prediction = reply.predictions[0];
  const parts = [];
  if ("prediction" in prediction) {
    parts.push(element("h2", prediction.prediction.toPrecision(4) + " " + prediction.unit));
  } else {
    parts.push(element("h2", prediction.action ? "Action: " + prediction.action : "Class: " + prediction.class));
    if (prediction.band) parts.push(element("p", "Risk band: " + prediction.band));
    const table = document.createElement("table");
    table.append(element("caption", "Probabilities"));
    for (const [name, share] of Object.entries(prediction.probabilities)) {
      const row = table.insertRow();
      const head = element("th", name);
      head.scope = "row";
      row.append(head, element("td", percent(share)));
      const meter = document.createElement("meter");
      meter.value = share;
      meter.setAttribute("aria-label", name + " " + percent(share));
      row.insertCell().append(meter);
    }
    parts.push(table);
  }
  parts.push(element("p", "Model " + reply.model_version + ", prediction " + prediction.id, "quiet"));
  show(...parts);
}

function showProblem(problem) {
  const field = problem.field && document.getElementById("f-" + problem.field);
  show(element("h2", "No answer"), element("p", problem.detail, "problem"));
  if (field) {
    field.setAttribute("aria-invalid", "true");
    field.parentElement.append(element("p", problem.detail, "problem"));
    field.focus();
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const record = {};
  for (const told of form.querySelectorAll(".problem")) told.remove();
  for (const field of fields) {
    field.removeAttribute("aria-invalid");
    record[field.name] = valueOf(field);
  }
  try {
    const response = await fetch("/v1/predict", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ records: [record] }),
    });
    const reply = await response.json();
    if (response.ok) showPrediction(reply);
    else showProblem(reply);
  } catch {
    showProblem({ detail: "The service can't be reached." });
  }
});

document.getElementById("example").addEventListener("click", () => {
  for (const field of fields) field.value = field.dataset.example;
});
