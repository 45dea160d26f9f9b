// The 3D viewer in its frame: its address, when it is there, whether it keeps up, and what it leaves open.

import { $, ask, state, toast } from "./talk.js";

const SLOWEST_FPS = 5; // below which the viewer is given less to draw
const PATIENCE = 30000; // milliseconds

// Show a world by its name alone: the viewer starts while the studio is still asked what the world is.
export function showScene(world) {
  $("scene").hidden = false;
  if (state.shown === world) return uncover();
  state.shown = world;
  state.page = crypto.getRandomValues(new Uint32Array(3)).reduce((text, part) => text + part.toString(36), "p");
  state.tries = 0;
  state.there = false;
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const how = drawing();
  const socket = `${scheme}://${location.host}/scene/${state.page}/${world}/${how}`;
  const coarse = how === "software" ? "&fixedDpr=0.5" : ""; // a quarter of the pixels
  $("scene").src = `/scene/?darkMode&hideViserLogo${coarse}&websocket=${socket}`;
  $("making-text").textContent = "Opening the world ...";
  $("making").classList.toggle("still", how === "software"); // what moves there takes from what is waited for
  $("making").hidden = false;
  const page = state.page;
  setTimeout(() => arrived(page), PATIENCE);
}

// The viewer's panels are there, or take too long to wait for.
function arrived(page) {
  if (state.page !== page || state.there) return;
  state.there = true;
  uncover();
}

export function leaveScene() {
  state.shown = state.page = "";
  $("scene").hidden = $("making").hidden = true;
  $("scene").src = "about:blank";
}

// The viewer shows nothing of use before its page and its world are there.
export function uncover() {
  $("making").hidden = Boolean(state.there && state.world?.ready);
}

// A studio that was started again does not know this page's viewer: begin anew.
export async function revive() {
  const world = state.shown;
  if (!world || !state.there || (await ask("GET", `/scene/${state.page}/there`).catch(() => true))) return;
  if (state.shown !== world) return;
  state.shown = "";
  showScene(world);
}

function drawing() {
  const gl = document.createElement("canvas").getContext("webgl2");
  const about = gl?.getExtension("WEBGL_debug_renderer_info");
  const name = about ? gl.getParameter(about.UNMASKED_RENDERER_WEBGL) : "";
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return !gl || /swiftshader|llvmpipe|softpipe|software|basic render/i.test(name) ? "software" : "hardware";
}

// The viewer's own frame rate, once it has something to draw: a machine that does not keep up gets less.
export function watchSpeed() {
  const inner = $("scene").contentWindow;
  let frames = 0, since = performance.now();
  const count = () => {
    if ($("scene").contentWindow !== inner || $("scene").hidden) return;
    if (!$("making").hidden) [frames, since] = [0, performance.now()]; // nobody looks yet
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

// Where there is no keyboard, buttons hold the viewer's walking keys down.
export function offerPad() {
  for (const button of $("pad").children) {
    const tell = (kind) => $("scene").contentDocument?.body.dispatchEvent(new KeyboardEvent(kind, { code: button.dataset.key, bubbles: true }));
    button.onpointerdown = () => tell("keydown");
    button.onpointerup = button.onpointerleave = button.onpointercancel = () => tell("keyup");
    button.oncontextmenu = (event) => event.preventDefault();
  }
}

// What the viewer's own page leaves open: its notice for machines without a GPU would cover the jobs, so a shorter one
// stands in for it; the chosen one of a row of buttons is known by its tick alone; labels that name no field are
// tied to theirs, for those who do not see them; and arrows that move a slider or along tabs would turn the view too.
let told = false;
export function amend(inner) {
  const page = state.page;
  let planned = false;
  const look = () => {
    planned = false;
    for (const box of inner.querySelectorAll("[role=alert]")) {
      if (!box.textContent.includes("Software WebGL")) continue;
      box.querySelector("button")?.click();
      if (!told) toast("This browser draws without a GPU, so less detail is shown.");
      told = true;
    }
    for (const button of inner.querySelectorAll("button[data-variant=outline]")) {
      button.dataset.chosen = button.textContent.startsWith("\u2713");
    }
    for (const label of inner.querySelectorAll("label[for]")) {
      if (inner.getElementById(label.htmlFor)?.labels) continue;
      const row = label.parentElement?.parentElement?.parentElement;
      const fields = row?.querySelectorAll("[role=slider], input:not([type=hidden]), textarea") ?? [];
      for (const field of fields) field.ariaLabel ||= label.textContent;
    }
  };
  const soon = () => {
    if (!state.there && inner.querySelector("[role=tab]")) arrived(page);
    if (planned) return;
    planned = true;
    setTimeout(look, 100);
  };
  inner.getElementById("root")?.addEventListener("keydown", (event) => {
    if (event.target.closest("[role=slider], [role=tab]")) event.stopPropagation();
  });
  new MutationObserver(soon).observe(inner.body, { childList: true, subtree: true, characterData: true });
}
