"use strict";
// Sends a question to /v1/assist and shows the reply with its reasons. Texts are set, never parsed as HTML.
const [form, talk, text, customer, key] = ["ask", "talk", "text", "customer", "key"].map((id) => document.getElementById(id));

function say(who, words, why = []) {
  const line = document.createElement("p");
  line.className = who;
  line.textContent = words;
  if (why.length) {
    const reasons = document.createElement("small");
    reasons.textContent = `Because: ${why.join("; ")}.`;
    line.append(reasons);
  }
  talk.append(line);
  talk.scrollTop = talk.scrollHeight;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = { text: text.value.trim() };
  if (customer.value) body.customer = Number(customer.value);
  const headers = { "content-type": "application/json" };
  if (key.value) headers["x-api-key"] = key.value;
  say("me", body.text);
  text.value = "";
  text.focus();
  try {
    const reply = await fetch("v1/assist", { method: "POST", headers, body: JSON.stringify(body) });
    const answer = await reply.json();
    if (reply.ok) say(answer.to_person ? "person" : "service", answer.reply, answer.reasons);
    else say("failed", `That didn't work: ${answer.detail}`);
  } catch {
    say("failed", "The service can't be reached. Please try again.");
  }
});

text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    form.requestSubmit();
  }
});
