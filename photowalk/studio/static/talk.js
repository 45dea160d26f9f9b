// What every part of the page uses: talking to the studio, elements, words to the person.

export const $ = (id) => document.getElementById(id);
export const state = { me: null, worlds: [], world: null, jobs: [], page: "", shown: "", there: false, frame: 0, tries: 0, heeded: "" };

export async function ask(method, path, body) {
  const options = { method, headers: {} };
  if (body instanceof FormData) options.body = body;
  else if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["content-type"] = "application/json";
  }
  const answer = await fetch(path, options);
  if (!answer.ok) {
    const detail = await answer.json().then((content) => content.detail, () => answer.statusText);
    throw new Error(detail);
  }
  return answer.status === 204 ? null : answer.json();
}

export async function trying(action) {
  try {
    return await action();
  } catch (error) {
    toast(error.message, true);
  }
}

// One piece of news at a time; what went wrong stays beside it.
export function toast(text, bad = false) {
  const box = element("div", { className: bad ? "toast bad" : "toast" }, text);
  $("toasts").querySelectorAll(bad ? ".bad" : ".toast:not(.bad)").forEach((old) => old.remove());
  $("toasts").append(box);
  setTimeout(() => box.remove(), bad ? 9000 : 4000);
}

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function confirmed(title, text, yes) {
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  $("ask-yes").textContent = yes;
  $("ask").showModal();
  return new Promise((done) => {
    $("ask").addEventListener("close", () => done($("ask").returnValue === "yes"), { once: true });
  });
}

export const chunkOf = (world, frame) => world.chunks.findLast((chunk) => chunk.first_frame <= frame);
export const frameOf = (world, frame) => `/api/worlds/${world.id}/frames/${frame}.jpg?key=${chunkOf(world, frame)?.key ?? ""}`;
export const fileOf = (world, name) => `/api/worlds/${world.id}/files/${name}?${world.chunks.at(-1)?.key ?? ""}`;
export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// The world on screen is another one now; who shows it listens.
export const changed = () => dispatchEvent(new Event("changed"));
