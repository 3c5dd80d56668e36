"use strict";
// Turns the form into one record, asks /v1/predict, and shows what comes back. Text only, never HTML.
const form = document.getElementById("form");
const answer = document.getElementById("answer");
const fields = [...form.querySelectorAll("[data-kind]")];

function valueOf(field) {
  if (field.value === "") return null;
  return field.dataset.kind === "number" ? Number(field.value) : field.value;
}

function element(tag, text, className) {
  const node = document.createElement(tag);
  node.textContent = text;
  if (className) node.className = className;
  return node;
}

function show(...parts) {
  answer.replaceChildren(...parts);
  answer.focus();
}

function percent(share) {
  return (100 * share).toFixed(1) + " %";
}

// One row a field, the greatest share first: its name, the share in words, and a bar from the middle: to the right
// where it raised the answer, to the left where it lowered it.
function reasonsTable(prediction) {
  const { of, base, value, contributions } = prediction.reasons;
  const share = "probabilities" in prediction;
  const inWords = (x) => (share ? (100 * x).toFixed(1) + " points" : x.toPrecision(3));
  const whole = (x) => (share ? percent(x) : x.toPrecision(4) + " " + of);
  const entries = Object.entries(contributions);
  const most = Math.max(...entries.map(([, x]) => Math.abs(x)), 1e-12);
  const table = document.createElement("table");
  table.className = "reasons";
  const caption = share ? "Reasons: what moved the probability of " + of : "Reasons: what moved the prediction";
  table.append(element("caption", caption + " from the average " + whole(base) + " to " + whole(value)));
  for (const [name, x] of entries) {
    const row = table.insertRow();
    const head = element("th", name.replaceAll("_", " "));
    head.scope = "row";
    row.append(head, element("td", (x < 0 ? "\u2212" : "+") + inWords(Math.abs(x))));
    const bar = element("span", "", x < 0 ? "bar down" : "bar up");
    bar.style.width = (50 * Math.abs(x)) / most + "%";
    bar.setAttribute("aria-hidden", "true");
    row.insertCell().append(bar);
  }
  return [table];
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
  if (prediction.reasons) parts.push(...reasonsTable(prediction));
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
  for (const problem of form.querySelectorAll(".problem")) problem.remove();
  for (const field of fields) {
    field.removeAttribute("aria-invalid");
    record[field.name] = valueOf(field);
  }
  try {
    const headers = { "content-type": "application/json" };
    const key = document.getElementById("key");
    if (key) headers.authorization = "Bearer " + key.value;
    const response = await fetch("/v1/predict?explain=true", {
      method: "POST",
      headers,
      body: JSON.stringify({ records: [record] }),
    });
    const reply = await response.json();
    if (response.ok) showPrediction(reply);
    else showProblem(reply);
  } catch {
    showProblem({ detail: "The service can't be reached." });
  }
});

// An answer is shown only beside the inputs that it is for.
function clear() {
  answer.replaceChildren();
}
form.addEventListener("input", clear);
form.addEventListener("invalid", clear, true);

document.getElementById("example").addEventListener("click", () => {
  clear();
  for (const field of fields) field.value = field.dataset.example;
});
