// Shows what the status says, every two seconds while somebody looks. Everything is set as text, never as markup.
"use strict";

const EVERY_MS = 2000;
const at = (id) => document.getElementById(id);

function made(name, text, kind) {
  const node = document.createElement(name);
  node.textContent = text;
  if (kind) node.className = kind;
  return node;
}

function problem(one) {
  const item = made("li", (one.path ? `"${one.path}": ` : "") + one.text, one.severity);
  if (one.fix) item.append(made("code", one.fix));
  return item;
}

function show({ status, facts }) {
  document.title = `${status.state} · layer-sync`;
  at("state").textContent = status.state;
  at("state").className = `state ${status.state}`;
  at("node").textContent = `${status.node.id}, ${status.node.side}`;
  at("problems").replaceChildren(...status.problems.map(problem));
  at("facts").replaceChildren(...facts.flatMap(([name, text]) => [made("dt", name), made("dd", text)]));
  at("now").textContent = new Date(status.now).toLocaleString();
}

async function look() {
  if (!document.hidden) {
    try {
      const answer = await fetch("/api/status");
      if (!answer.ok) throw new Error(answer.statusText);
      show(await answer.json());
      at("lost").hidden = true;
    } catch {
      at("lost").hidden = false;
    }
  }
  setTimeout(look, EVERY_MS);
}

look();
