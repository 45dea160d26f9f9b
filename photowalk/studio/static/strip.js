// The strip of frames: chunks, their history, the timeline that plays the walk.

import { $, ask, changed, element, fileOf, frameOf, state, toast, trying } from "./talk.js";

const FPS = 16;
const THUMBNAILS = 6; // of a chunk
let made = ""; // which chunks the strip has now

export function showHistory() {
  const world = state.world;
  const focused = document.activeElement;
  $("undo").disabled = world.chunks.length < 2;
  $("redo").disabled = world.undone === 0;
  if (focused?.disabled) $("timeline").focus(); // a disabled button takes no keys
  $("timeline").max = world.frames - 1;
  $("play").disabled = world.frames < 2;
  const chunks = [world.id, ...world.chunks.map((chunk) => chunk.key)].join();
  if (chunks !== made) {
    made = chunks;
    $("chunks").replaceChildren(...world.chunks.map(chunkItem));
    $("chunks").scrollLeft = $("chunks").scrollWidth;
  }
  showFrame(Math.min(state.frame, world.frames - 1));
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
  $("chunk-reroll").hidden = !last || chunk.index === 0;
  const dialog = $("about-chunk");
  dialog.returnValue = "";
  dialog.showModal();
  dialog.onclose = () => {
    if (dialog.returnValue === "branch") branch(chunk.index);
    if (dialog.returnValue === "reroll") reroll();
  };
}

async function reroll() {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
  await trying(() => ask("POST", `/api/worlds/${state.world.id}/reroll`, { seed }));
  changed();
}

export async function step(way) {
  if (!state.world) return;
  const world = await trying(() => ask("POST", `/api/worlds/${state.world.id}/${way}`, {}));
  if (world) {
    toast(way === "undo" ? "Undone. Redo takes it back until a new chunk is made." : "Taken back.");
    changed();
  }
}

export async function branch(at) {
  const world = await trying(() => ask("POST", `/api/worlds/${state.world.id}/branches`, at === undefined ? {} : { at }));
  if (world) {
    toast(`"${world.title}" goes on from ${world.branched_at === 0 ? "the photo" : `chunk ${world.branched_at}`}.`);
    location.hash = world.id;
  }
}

export function showFrame(frame) {
  state.frame = frame;
  $("timeline").value = frame;
  $("clock").textContent = `${frame} / ${state.world.frames - 1}`;
  const buttons = [...document.querySelectorAll(".frames button")];
  const now = buttons.findLast((button) => Number(button.dataset.frame) <= frame) ?? buttons[0];
  buttons.forEach((button) => button.classList.toggle("now", button === now));
}

let looking = false, wanted = null;
export async function stand(frame) {
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

function showPlaying(playing) {
  $("pip").hidden = !playing;
  $("play").querySelector("path").setAttribute("d", playing ? "M7 4h3.6v16H7zM13.4 4H17v16h-3.6z" : "M7 4v16l13-8z");
  $("play").ariaLabel = playing ? "Stop" : "Play the walk";
}

export function play() {
  const video = $("video");
  if (!$("pip").hidden && !video.paused) return stopPlaying();
  if (!state.world.files.includes("walk.mp4")) return toast("The film of a walk is written when the walk is finished.");
  const source = fileOf(state.world, "walk.mp4");
  if (video.getAttribute("src") !== source) video.src = source;
  video.currentTime = state.frame >= state.world.frames - 1 ? 0 : state.frame / FPS;
  showPlaying(true);
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

export function stopPlaying() {
  $("video").pause();
  showPlaying(false);
}

