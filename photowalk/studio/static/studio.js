// The shell around the 3D viewer: photos in, worlds, jobs, history, the strip of frames. What it knows it asks the API.

const $ = (id) => document.getElementById(id);
const FPS = 16;
const THUMBNAILS = 6; // of a chunk
const SLOWEST_FPS = 5; // below which the viewer is given less to draw

const state = { me: null, worlds: [], world: null, jobs: [], page: "", frame: 0, tries: 0 };

// ---- talking to the studio

async function ask(method, path, body) {
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

async function trying(action) {
  try {
    return await action();
  } catch (error) {
    toast(error.message, true);
  }
}

function toast(text, bad = false) {
  const box = element("div", { className: bad ? "toast bad" : "toast" }, text);
  $("toasts").append(box);
  while ($("toasts").children.length > 3) $("toasts").firstChild.remove();
  setTimeout(() => box.remove(), bad ? 9000 : 4000);
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function confirmed(title, text, yes) {
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  $("ask-yes").textContent = yes;
  $("ask").showModal();
  return new Promise((done) => {
    $("ask").addEventListener("close", () => done($("ask").returnValue === "yes"), { once: true });
  });
}

const chunkOf = (world, frame) => world.chunks.findLast((chunk) => chunk.first_frame <= frame);
const frameOf = (world, frame) => `/api/worlds/${world.id}/frames/${frame}.jpg?key=${chunkOf(world, frame)?.key ?? ""}`;
const fileOf = (world, name) => `/api/worlds/${world.id}/files/${name}?${world.frames}`;
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// ---- worlds

async function showLanding() {
  state.world = null;
  $("scene").hidden = $("strip").hidden = $("tools").hidden = $("title-box").hidden = $("making").hidden = $("pip").hidden = true;
  $("scene").src = "about:blank";
  $("landing").hidden = false;
  document.body.classList.add("home");
  state.page = "";
  document.title = "photowalk studio";
  state.worlds = (await trying(() => ask("GET", "/api/worlds"))) ?? [];
  $("none").hidden = state.worlds.length > 0;
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
  const world = await trying(() => ask("GET", `/api/worlds/${id}`));
  if (!world) return void (location.hash = "");
  const other = state.world?.id !== world.id;
  state.world = world;
  $("landing").hidden = true;
  $("title-box").hidden = false;
  $("title").value = world.title;
  document.title = `${world.title} - photowalk`;
  if (!world.ready) $("making").hidden = false;
  document.body.classList.remove("home");
  $("tools").hidden = $("strip").hidden = $("scene").hidden = !world.ready;
  if (world.problem) toast(world.problem, true);
  if (world.ready) {
    if (other || $("scene").getAttribute("src") === "about:blank") showScene();
    showHistory();
  }
  showJobs();
}

function showScene() {
  state.page = crypto.getRandomValues(new Uint32Array(3)).reduce((text, part) => text + part.toString(36), "p");
  state.frame = state.world.frames - 1;
  state.tries = 0;
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = `${scheme}://${location.host}/scene/${state.page}/${state.world.id}/${drawing()}`;
  const coarse = socket.endsWith("software") ? "&fixedDpr=0.5" : ""; // a quarter of the pixels
  $("scene").src = `/scene/?darkMode&hideViserLogo${coarse}&websocket=${socket}`;
  $("making-text").textContent = "Opening the world ...";
  $("making").hidden = false;
  connected(state.page, 100);
}

// The viewer shows nothing of use before its page is there.
async function connected(page, tries) {
  const there = await ask("GET", `/scene/${page}/there`).catch(() => false);
  if (state.page !== page || !state.world?.ready) return;
  if (there || tries === 0) setTimeout(() => { $("making").hidden = true; }, 250);
  else setTimeout(() => connected(page, tries - 1), 150);
}

function drawing() {
  const gl = document.createElement("canvas").getContext("webgl2");
  const about = gl?.getExtension("WEBGL_debug_renderer_info");
  const name = about ? gl.getParameter(about.UNMASKED_RENDERER_WEBGL) : "";
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return !gl || /swiftshader|llvmpipe|softpipe|software|basic render/i.test(name) ? "software" : "hardware";
}

// The viewer's own frame rate, once it has something to draw: a machine that does not keep up gets less.
function watchSpeed() {
  const inner = $("scene").contentWindow;
  let frames = 0, since = performance.now();
  const count = () => {
    if ($("scene").contentWindow !== inner || $("scene").hidden) return;
    frames += 1;
    const seconds = (performance.now() - since) / 1000;
    if (seconds > 4) {
      const rate = frames / seconds;
      $("scene").dataset.fps = rate.toFixed(1);
      if (rate < SLOWEST_FPS && state.tries < 5 && !document.hidden) {
        state.tries += 1;
        ask("POST", `/scene/${state.page}/slower`).catch(() => {});
      }
      frames = 0;
      since = performance.now();
    }
    inner.requestAnimationFrame(count);
  };
  setTimeout(() => { since = performance.now(); inner.requestAnimationFrame(count); }, 3000);
}

// ---- the strip and the history

function showHistory() {
  const world = state.world;
  const focused = document.activeElement;
  $("undo").disabled = world.chunks.length < 2;
  $("redo").disabled = world.undone === 0;
  if (focused?.disabled) $("timeline").focus(); // a disabled button takes no keys
  $("timeline").max = world.frames - 1;
  $("play").disabled = world.frames < 2;
  $("chunks").replaceChildren(...world.chunks.map(chunkItem));
  showFrame(Math.min(state.frame, world.frames - 1));
  $("chunks").scrollLeft = $("chunks").scrollWidth;
}

function chunkItem(chunk) {
  const name = chunk.index === 0 ? "Photo" : `Chunk ${chunk.index}`;
  const label = element("button", { className: "name", title: `About ${name.toLowerCase()}` }, element("b", {}, name));
  if (chunk.path) label.append(element("span", {}, chunk.path));
  label.onclick = () => aboutChunk(chunk, name);
  const count = Math.min(THUMBNAILS, chunk.frames);
  const frames = Array.from({ length: count }, (_, i) => chunk.first_frame + Math.round(((i + 1) * chunk.frames) / count) - 1);
  const pictures = frames.map((frame) => {
    const button = element("button", { ariaLabel: `Stand at frame ${frame}`, title: `Frame ${frame}` });
    button.dataset.frame = frame;
    button.append(element("img", { src: frameOf(state.world, frame), alt: "", loading: "lazy" }));
    button.onclick = () => stand(frame);
    return button;
  });
  return element("li", { className: "chunk" }, label, element("div", { className: "frames" }, ...pictures));
}

function aboutChunk(chunk, name) {
  $("chunk-title").textContent = name;
  const facts = { Path: chunk.path || "-", Prompt: chunk.prompt || "-", Seed: chunk.seed, Frames: `${chunk.first_frame} to ${chunk.first_frame + chunk.frames - 1}` };
  if (chunk.notes.length) facts.Notes = chunk.notes.join("; ");
  $("chunk-facts").replaceChildren(...Object.entries(facts).flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, String(value))]));
  const last = chunk.index === state.world.chunks.length - 1;
  $("chunk-reroll").hidden = !last || chunk.index === 0 || chunk.path === "cameras";
  const dialog = $("about-chunk");
  dialog.returnValue = "";
  dialog.showModal();
  dialog.onclose = () => {
    if (dialog.returnValue === "branch") branch(chunk.index);
    if (dialog.returnValue === "reroll") reroll(chunk);
  };
}

async function reroll(chunk) {
  const id = state.world.id;
  await trying(async () => {
    await ask("POST", `/api/worlds/${id}/undo`, {});
    const seed = crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
    await ask("POST", `/api/worlds/${id}/extend`, { path: chunk.path, prompt: chunk.prompt || null, seed });
  });
  await changed();
}

async function step(way) {
  if (!state.world) return;
  const world = await trying(() => ask("POST", `/api/worlds/${state.world.id}/${way}`, {}));
  if (world) {
    toast(way === "undo" ? "Undone. Redo takes it back until a new chunk is made." : "Taken back.");
    await changed();
  }
}

async function branch(at) {
  const world = await trying(() => ask("POST", `/api/worlds/${state.world.id}/branches`, at === undefined ? {} : { at }));
  if (world) {
    toast(`"${world.title}" goes on from ${world.branched_at === 0 ? "the photo" : `chunk ${world.branched_at}`}.`);
    location.hash = world.id;
  }
}

// The world on screen is another one now: show it as it is.
async function changed() {
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

function showFrame(frame) {
  state.frame = frame;
  $("timeline").value = frame;
  $("clock").textContent = `${frame} / ${state.world.frames - 1}`;
  const buttons = [...document.querySelectorAll(".frames button")];
  const now = buttons.findLast((button) => Number(button.dataset.frame) <= frame) ?? buttons[0];
  buttons.forEach((button) => button.classList.toggle("now", button === now));
}

let looking = false, wanted = null;
async function stand(frame) {
  showFrame(frame);
  wanted = frame;
  if (looking) return;
  looking = true;
  while (wanted !== null) {
    const next = wanted;
    wanted = null;
    await ask("POST", `/scene/${state.page}/look`, { frame: next }).catch(() => {});
  }
  looking = false;
}

function play() {
  const video = $("video");
  if (!$("pip").hidden && !video.paused) return stopPlaying();
  const source = fileOf(state.world, "walk.mp4");
  if (video.getAttribute("src") !== source) video.src = source;
  video.currentTime = state.frame >= state.world.frames - 1 ? 0 : state.frame / FPS;
  $("pip").hidden = false;
  $("play").classList.add("on");
  video.play().catch(() => toast("This browser cannot play the walk; download it in the Export tab.", true));
  const follow = () => {
    if ($("pip").hidden || video.paused || !state.world) return;
    stand(Math.min(Math.round(video.currentTime * FPS), state.world.frames - 1));
    setTimeout(follow, 120);
  };
  video.onplaying = follow;
  video.onended = () => {
    if (state.world) stand(state.world.frames - 1);
    setTimeout(() => { if (video.ended) stopPlaying(); }, 1500);
  };
}

function stopPlaying() {
  $("video").pause();
  $("pip").hidden = true;
}

// ---- branches

async function compare() {
  state.worlds = (await trying(() => ask("GET", "/api/worlds"))) ?? [];
  const byId = new Map(state.worlds.map((world) => [world.id, world]));
  const root = (world) => (byId.has(world.parent) ? root(byId.get(world.parent)) : world);
  const here = byId.get(state.world.id);
  const top = root(here);
  const family = state.worlds.filter((world) => world.ready && root(world) === top);
  const node = (world) => {
    const from = world.parent ? ` from ${world.branched_at === 0 ? "the photo" : `chunk ${world.branched_at}`}` : "";
    const link = element("a", { href: `#${world.id}`, className: world === here ? "here" : "" },
      element("img", { src: frameOf(world, world.frames - 1), alt: "" }),
      element("div", {}, element("strong", {}, world.title), element("br"), element("small", {}, `${plural(world.chunks.length - 1, "chunk")}${from}`)));
    link.onclick = () => $("compare").close();
    const children = family.filter((other) => other.parent === world.id).reverse();
    return element("li", {}, link, ...(children.length ? [element("ul", {}, ...children.map(node))] : []));
  };
  $("tree").replaceChildren(node(top));
  const others = family.filter((world) => world !== here);
  $("pair").hidden = $("both").hidden = others.length === 0;
  $("alone").hidden = others.length > 0;
  for (const [side, chosen] of [["left", here], ["right", others[0] ?? here]]) {
    $(side).replaceChildren(...family.map((world) => element("option", { value: world.id, selected: world === chosen }, world.title)));
    $(side).onchange = () => {
      const world = byId.get($(side).value);
      $(`${side}-video`).poster = frameOf(world, world.frames - 1);
      $(`${side}-video`).src = fileOf(world, "walk.mp4");
    };
    $(side).onchange();
  }
  $("compare").showModal();
}

function playBoth() {
  for (const side of ["left", "right"]) {
    $(`${side}-video`).currentTime = 0;
    $(`${side}-video`).play();
  }
}

// ---- jobs

const KINDS = { create: "Making the world", correct: "Correcting the world", extend: "Walking on", reconstruct: "Making splats", export: "Writing a file" };
const STAGES = {
  photo: "looking at the photo", recall: "recalling what was seen", warp: "warping it into the new views", denoise: "denoising",
  detail: "sharpening frames", depth: "estimating depth", splats: "lifting views", preview: "rendering the preview", export: "writing",
};
const SHARES = { recall: [0, 0.02], warp: [0.02, 0.05], denoise: [0.05, 0.5], detail: [0.5, 0.9], depth: [0.9, 1] };
const dismissed = new Set(JSON.parse(localStorage.getItem("dismissed") ?? "[]"));

function dismiss(job) {
  dismissed.add(job.id);
  localStorage.setItem("dismissed", JSON.stringify([...dismissed].slice(-200)));
  showJobs();
}

function showJobs() {
  const recent = state.jobs.filter((job) => !dismissed.has(job.id) && (["waiting", "running", "interrupted"].includes(job.state) || (job.state === "failed" && Date.now() / 1000 - job.created < 3600)));
  const mine = recent.filter((job) => !state.world || job.world === state.world.id || job.state === "running");
  reconcile($("jobs"), mine.slice(0, 4).reverse());
  if (state.world && !state.world.ready) {
    const job = state.jobs.find((other) => other.world === state.world.id);
    $("making-text").textContent = job?.state === "failed" ? job.message : job?.state === "waiting" ? `Waiting for a turn, place ${job.place} in the queue ...` : "Estimating depth ...";
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
    waiting: `Waiting for a turn, place ${job.place} in the queue`,
    running: progress.stage ? `${STAGES[progress.stage] ?? progress.stage}${counted}` : "getting ready",
    interrupted: "The studio was stopped meanwhile. What was finished is kept.",
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
      failed: [button("Try again", act("resume")), button("Close", async () => dismiss(job))],
    }[wish] ?? [];
    box.querySelector(".buttons").replaceChildren(...buttons);
  }
  return box;
}

function listen() {
  const events = new EventSource("/api/events");
  events.onmessage = (message) => {
    const before = new Map(state.jobs.map((job) => [job.id, job]));
    state.jobs = JSON.parse(message.data);
    let mine = false, any = false;
    for (const job of state.jobs) {
      const old = before.get(job.id);
      const moved = old && (old.state !== job.state || old.progress.chunk !== job.progress.chunk);
      if (moved && job.state === "cancelled") toast("Cancelled. Finished chunks are kept.");
      if (moved && job.state === "done" && job.message) toast(job.message);
      if (moved) any = true;
      if (moved && job.world === state.world?.id) mine = true;
    }
    showJobs();
    if (mine) changed();
    else if (any && !state.world) showLanding();
  };
}

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

// What the viewer's own page leaves open: its notice for machines without a GPU would cover the jobs, so a shorter one
// stands in for it; and labels that name no field are tied to theirs, for those who do not see them.
function amend(inner) {
  let planned = false, told = false;
  const look = () => {
    planned = false;
    for (const box of told ? [] : inner.querySelectorAll("[role=alert]")) {
      if (!box.textContent.includes("Software WebGL")) continue;
      box.querySelector("button")?.click();
      toast("This browser draws without a GPU, so less detail is shown.");
      told = true;
    }
    for (const label of inner.querySelectorAll("label[for]")) {
      if (inner.getElementById(label.htmlFor)) continue;
      const row = label.parentElement?.parentElement?.parentElement;
      const field = row?.querySelector("input, textarea");
      if (field && !field.ariaLabel) field.ariaLabel = label.textContent;
    }
  };
  const soon = () => {
    if (planned) return;
    planned = true;
    setTimeout(look, 100);
  };
  new MutationObserver(soon).observe(inner.body, { childList: true, subtree: true });
}

function takeDrops(target) {
  target.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  target.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  target.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    const file = event.dataTransfer.files[0];
    if (file) create(file);
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
addEventListener("keydown", keys);
addEventListener("hashchange", route);

state.me = await trying(() => ask("GET", "/api/me"));
if (state.me) {
  listen();
  await route();
}
