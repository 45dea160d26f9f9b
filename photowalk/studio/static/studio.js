// The shell around the 3D viewer: which world is shown, photos in, keys. What it knows it asks the API.

import { compare, playBoth } from "./branches.js";
import { listen, showJobs } from "./jobs.js";
import { amend, leaveScene, offerPad, showScene, uncover, watchSpeed } from "./scene.js";
import { branch, play, showFrame, showHistory, stand, step, stopPlaying } from "./strip.js";
import { $, ask, confirmed, element, frameOf, plural, state, toast, trying } from "./talk.js";

// ---- worlds

let asked = 0; // questions what the world is; only the answer to the last one counts, whichever comes last

async function showLanding() {
  asked += 1;
  state.world = null;
  leaveScene();
  $("strip").hidden = $("tools").hidden = $("title-box").hidden = $("pip").hidden = $("pad").hidden = true;
  $("landing").hidden = false;
  document.body.classList.add("home");
  document.title = "photowalk studio";
  state.worlds = (await trying(() => ask("GET", "/api/worlds"))) ?? [];
  $("first").hidden = state.worlds.length > 0;
  $("gallery").hidden = state.worlds.length === 0;
  $("worlds").replaceChildren(...state.worlds.map(card));
  showJobs();
}

function card(world) {
  const picture = world.ready
    ? element("img", { src: frameOf(world, 0), alt: "", loading: "lazy" })
    : element("div", { className: "blank" });
  const size = world.ready ? `${plural(world.frames, "frame")}, ${world.walked.toFixed(1)} m walked` : world.problem || "being made";
  const remove = element("button", { title: `Delete ${world.title}`, ariaLabel: `Delete ${world.title}` }, "\u2715");
  remove.onclick = async () => {
    if (await confirmed(`Delete "${world.title}"?`, "Its frames and files are deleted. This cannot be undone.", "Delete")) {
      await trying(() => ask("DELETE", `/api/worlds/${world.id}`));
      showLanding();
    }
  };
  const what = element("div", { className: "what" }, element("strong", {}, world.title), element("small", {}, size));
  return element("li", { className: "card" }, element("a", { href: `#${world.id}` }, picture, what), remove);
}

async function create(file) {
  if (!file) return;
  if (file.size > state.me.max_upload_bytes) return toast(`${file.name} is larger than ${state.me.max_upload_bytes >> 20} MB.`, true);
  const form = new FormData();
  form.append("photo", file);
  form.append("title", file.name.replace(/\.[^.]*$/, "").slice(0, 120));
  form.append("prompt", $("prompt").value);
  const made = await trying(() => ask("POST", "/api/worlds", form));
  if (made) location.hash = made.world.id;
}

async function open(id) {
  showScene(id);
  $("landing").hidden = true;
  document.body.classList.remove("home");
  const question = (asked += 1);
  const world = await trying(() => ask("GET", `/api/worlds/${id}`));
  if (question !== asked || location.hash.slice(1) !== id) return; // somebody asked again or went elsewhere meanwhile
  if (!world) return void (location.hash = "");
  if (state.world?.id !== world.id) state.frame = world.frames - 1;
  state.world = world;
  $("title-box").hidden = false;
  $("title").value = world.title;
  document.title = `${world.title} - photowalk`;
  $("tools").hidden = $("strip").hidden = $("pad").hidden = !world.ready;
  if (world.problem) toast(world.problem, true);
  if (world.ready) showHistory();
  uncover();
  showJobs();
}

// The world on screen is another one now: show it as it is.
async function showChanged() {
  if (!state.world) return;
  const before = state.world.frames;
  await open(state.world.id);
  if (state.world && state.world.frames !== before) {
    state.frame = state.world.frames - 1;
    showFrame(state.frame);
    stopPlaying();
  }
  if (state.page) ask("POST", `/scene/${state.page}/refresh`).catch(() => {});
}

async function takePath(file) {
  const form = new FormData();
  form.append("file", file);
  await trying(async () => {
    const poses = await ask("POST", `/api/worlds/${state.world.id}/paths`, form);
    await ask("POST", `/scene/${state.page}/keyframes`, poses);
    toast(`${plural(poses.length, "keyframe")} of ${file.name}: see the Plan tab.`);
  });
}

const take = (file) => (state.world?.ready && /\.(npz|json|txt|zip)$/i.test(file.name) ? takePath(file) : create(file));

// ---- keys, drops, start

function keys(event) {
  const typing = event.target.closest?.("input:not([type=range]), textarea, select, dialog");
  if (typing || !state.world) return;
  const control = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  if (control && key === "z") { event.preventDefault(); step(event.shiftKey ? "redo" : "undo"); }
  else if (control || event.altKey) return;
  else if (key === " " && event.target.tagName !== "BUTTON") { event.preventDefault(); play(); }
  else if (key === "b") branch();
  else if (key === "c") compare();
}

function takeDrops(target) {
  target.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  target.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  target.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    const file = event.dataTransfer.files[0];
    if (file) take(file);
  });
}

async function route() {
  stopPlaying();
  const id = location.hash.slice(1);
  if (/^[0-9a-f]{16}$/.test(id)) await open(id);
  else await showLanding();
}

$("photo").onchange = () => { create($("photo").files[0]); $("photo").value = ""; };
$("new").onsubmit = (event) => event.preventDefault();
$("undo").onclick = () => step("undo");
$("redo").onclick = () => step("redo");
$("branch").onclick = () => branch();
$("branches").onclick = compare;
$("both").onclick = playBoth;
$("play").onclick = play;
$("timeline").oninput = () => stand(Number($("timeline").value));
$("title").onchange = () => trying(async () => { state.world = await ask("PATCH", `/api/worlds/${state.world.id}`, { title: $("title").value.trim() || "A world" }); });
$("title").onkeydown = (event) => { if (event.key === "Enter") $("title").blur(); };
$("compare").onclose = () => ["left", "right"].forEach((side) => $(`${side}-video`).pause());
$("scene").onload = () => {
  if ($("scene").getAttribute("src") === "about:blank") return;
  takeDrops($("scene").contentWindow);
  amend($("scene").contentDocument);
  watchSpeed();
};
takeDrops(window);
offerPad();
addEventListener("keydown", keys);
addEventListener("hashchange", route);
addEventListener("changed", showChanged);

const shown = route(); // before it is known who asks: every answer counts at the start
state.me = await trying(() => ask("GET", "/api/me"));
if (state.me) {
  await shown;
  listen(showLanding);
}
