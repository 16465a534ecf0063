"use strict";

// A till that shows what the terminal's service tells: docs/json.md, "event".

const waiting = { sign: "waiting", ja: "カードをかざしてください。", en: "Please present your card." };
const shownFor = 5000; // ms

const setting = (name) => document.querySelector(`meta[name="freearea-${name}"]`).content;

let back; // timer that ends what is shown

// show tells the person. Text only: nothing from a card becomes markup.
function show(feedback, id) {
  document.body.dataset.sign = feedback.sign;
  document.getElementById("ja").textContent = feedback.ja;
  document.getElementById("en").textContent = feedback.en;
  document.getElementById("customer").textContent = id;
  clearTimeout(back);
}

// customer is where a till's own software takes over: look the ID up, add points.
// The tap's id says whether this tap was taken into account already.
function customer(id, tap) {
  console.log(`tap ${tap}: customer ${id}`);
}

function tapped(event) {
  // The ID of a tap that was not accepted is not there; the outcome decides all the same.
  const accepted = event.outcome === "accepted";
  show(event.feedback, accepted ? event.tap.id : "");
  back = setTimeout(show, shownFor, waiting, "");
  if (accepted) customer(event.tap.id, event.tap.tap);
}

const stream = new URL("/v1/events/stream", setting("service"));
const token = setting("token");
if (token) stream.searchParams.set("access_token", token); // an EventSource sends no headers

show(waiting, "");
// The browser connects again by itself, and says after which event.
const events = new EventSource(stream);
events.addEventListener("open", () => { document.body.dataset.service = "there"; });
events.addEventListener("error", () => { document.body.dataset.service = "away"; });
events.addEventListener("tap", (message) => tapped(JSON.parse(message.data)));
