// The cards of jobs, kept true by the studio's events.

import { revive } from "./scene.js";
import { $, ask, changed, element, state, toast, trying } from "./talk.js";

const KINDS = { create: "Making the world", correct: "Correcting the lens", expand: "Writing the prompt", extend: "Walking on", reconstruct: "Making splats", export: "Writing a file" };
const STAGES = {
  photo: "looking at the photo", recall: "recalling what was seen", warp: "warping it into the new views", denoise: "denoising",
  detail: "sharpening frames", depth: "estimating depth", mesh: "building the mesh", splats: "lifting views", colours: "matching colours", refine: "fitting the splats", preview: "rendering the preview", export: "writing",
};
const SHARES = { recall: [0, 0.02], warp: [0.02, 0.05], denoise: [0.05, 0.5], detail: [0.5, 0.9], depth: [0.9, 1] };
const dismissed = new Set(JSON.parse(localStorage.getItem("dismissed") ?? "[]"));

function dismiss(job) {
  dismissed.add(job.id);
  localStorage.setItem("dismissed", JSON.stringify([...dismissed].slice(-200)));
  showJobs();
}

export function showJobs() {
  const making = state.world && !state.world.ready && state.jobs.find((job) => job.world === state.world.id);
  const recent = state.jobs.filter((job) => !dismissed.has(job.id) && (["waiting", "running", "interrupted"].includes(job.state) || (job.state === "failed" && Date.now() / 1000 - job.created < 3600) || (job === making && job.state === "cancelled")));
  const mine = recent.filter((job) => !state.world || job.world === state.world.id || job.state === "running");
  reconcile($("jobs"), mine.slice(0, 4).reverse());
  if (state.world && !state.world.ready) {
    const job = making;
    const told = { failed: job?.message, cancelled: "This was cancelled before the world was made.", waiting: `Waiting for a turn, place ${job?.place} in the queue ...` };
    $("making-text").textContent = state.world.problem || (told[job?.state] ?? "Estimating depth ...");
    // A quick job is over before the page has heard of it, or before it knows the world that it asked for.
    if (job?.state === "done" && state.heeded !== job.id) {
      state.heeded = job.id;
      changed();
    }
  }
}

function reconcile(box, jobs) {
  const there = new Map([...box.children].map((child) => [child.dataset.job, child]));
  const kept = jobs.map((job) => fill(there.get(job.id) ?? jobCard(job), job));
  if (kept.length !== box.children.length || kept.some((child, i) => box.children[i] !== child)) box.replaceChildren(...kept);
}

function jobCard(job) {
  const made = element("article", { className: "job" });
  made.dataset.job = job.id;
  made.append(
    element("img", { alt: "The newest frame", hidden: true }),
    element("div", { className: "body" }, element("div", { className: "head" }, element("strong")), element("p"), element("progress", { max: 1, value: 0 }), element("div", { className: "buttons" })),
  );
  return made;
}

function fill(box, job) {
  const { progress } = job;
  const title = KINDS[job.order.kind] + (progress.chunks > 1 && job.state === "running" ? `, chunk ${progress.chunk} of ${progress.chunks}` : "");
  box.classList.toggle("bad", ["failed", "interrupted"].includes(job.state));
  box.querySelector("strong").textContent = { failed: "That did not work", interrupted: `${KINDS[job.order.kind]} was interrupted` }[job.state] ?? title;
  const counted = progress.total > 1 ? ` ${Math.min(progress.done + (progress.stage === "denoise" ? 0 : 1), progress.total)} of ${progress.total}` : "";
  box.querySelector("p").textContent = {
    waiting: job.held ? "Waiting for the walk before it: finish or cancel that first" : `Waiting for a turn, place ${job.place} in the queue`,
    running: progress.stage ? `${STAGES[progress.stage] ?? progress.stage}${counted}` : "getting ready",
    interrupted: "The studio was stopped meanwhile. What was finished is kept.",
    cancelled: "It was cancelled.",
    failed: job.message,
  }[job.state] ?? job.state;
  const bar = box.querySelector("progress");
  bar.hidden = job.state !== "running";
  const inStage = progress.total ? progress.done / progress.total : 0;
  const [low, high] = SHARES[progress.stage] ?? [0, 1];
  bar.value = (progress.chunk - 1 + low + (high - low) * inStage) / progress.chunks;
  const image = box.querySelector("img");
  image.hidden = !progress.previews || job.state !== "running";
  const source = `/api/jobs/${job.id}/preview.jpg?${progress.previews}`;
  if (!image.hidden && image.getAttribute("src") !== source) image.src = source;
  const wish = job.state;
  if (box.dataset.state !== wish) {
    box.dataset.state = wish;
    const button = (text, action) => element("button", { onclick: () => trying(action) }, text);
    const act = (verb) => () => ask("POST", `/api/jobs/${job.id}/${verb}`);
    const buttons = {
      waiting: [button("Cancel", act("cancel"))],
      running: [button("Cancel", act("cancel"))],
      interrupted: [button("Go on", act("resume")), button("Drop it", act("cancel"))],
      cancelled: [button("Try again", act("resume"))],
      failed: [button("Try again", act("resume")), button("Close", async () => dismiss(job))],
    }[wish] ?? [];
    box.querySelector(".buttons").replaceChildren(...buttons);
  }
  return box;
}

// A page that is not looked at does not listen: a browser keeps few connections to one address open at a time.
let events = null, heard = false;
export function listen(landing) {
  document.addEventListener("visibilitychange", () => (document.hidden ? events?.close() : connect(landing)));
  connect(landing);
}

function connect(landing) {
  if (document.hidden) return;
  events?.close();
  const own = (events = new EventSource("/api/events"));
  let first = true; // what has changed before a connection, or between two, nobody tells
  own.onopen = () => (first = true);
  own.onerror = () => {
    if (own.readyState === EventSource.CLOSED && own === events) setTimeout(() => own === events && connect(landing), 3000);
  };
  own.onmessage = (message) => {
    const before = new Map(state.jobs.map((job) => [job.id, job]));
    state.jobs = JSON.parse(message.data);
    let mine = first && state.world && (heard || state.jobs.some((job) => job.world === state.world.id));
    let any = first && state.worlds.some((world) => !world.ready);
    if (first && heard) revive(); // it was another connection before
    [first, heard] = [false, true];
    for (const job of state.jobs) {
      const old = before.get(job.id);
      const moved = old && (old.state !== job.state || old.progress.chunk !== job.progress.chunk);
      if (moved && job.state === "cancelled") toast("Cancelled. Finished chunks are kept.");
      if (moved && job.state === "done" && job.message && job.order.kind !== "expand") toast(job.message);
      if (moved) any = true;
      if (moved && job.world === state.world?.id) mine = true;
    }
    showJobs();
    if (mine) changed();
    else if (any && !state.shown) landing(); // not while a world is being opened
  };
}
