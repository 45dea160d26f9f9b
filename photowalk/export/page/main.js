// The page itself: loads what lies in it, listens to keys, mouse, touch and headset, and draws when something changed.

// ---- 4x4 matrices, column-major

const product = (a, b) => Float32Array.from({ length: 16 }, (_, k) => {
  const row = k & 3, column = k & 12;
  return a[row] * b[column] + a[row + 4] * b[column + 1] + a[row + 8] * b[column + 2] + a[row + 12] * b[column + 3];
});

function rigidInverse(m) {
  const r = [m[0], m[4], m[8], 0, m[1], m[5], m[9], 0, m[2], m[6], m[10], 0, 0, 0, 0, 1];
  for (let k = 0; k < 3; k++) r[12 + k] = -(m[4 * k] * m[12] + m[4 * k + 1] * m[13] + m[4 * k + 2] * m[14]);
  return r;
}

// Where an eye is that stands at (x, y, z), turned left by yaw and then up by pitch.
function pose(x, y, z, yaw, pitch) {
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  return [cy, 0, -sy, 0, sy * sp, cp, cy * sp, 0, sy * cp, -sp, cy * cp, 0, x, y, z, 1];
}

// ---- the place

const element = (id) => document.getElementById(id);
const canvas = element("view"), place = JSON.parse(element("place").textContent);
const FRAMES_PER_SECOND = 16, FINEST = 2, COARSEST = 0.35, SLOW = 50, FAST = 22; // device pixels; milliseconds
let renderer, walker, sorter, total = 0;

async function load() {
  renderer = new Renderer(canvas);
  const { centres, words, ...rest } = decodeSplats(await unpacked("splats"));
  total = rest.total;
  renderer.load(words);
  walker = new Walker(new Grid(place.solid, await unpacked("solid")), place.eye);
  sorter = new Worker(URL.createObjectURL(new Blob([element("sorter").textContent], { type: "text/javascript" })));
  sorter.onmessage = sorted;
  sorter.postMessage({ centres }, [centres.buffer]);
}

// ---- where the eye is

let visiting = null, replaying = null; // a frame of the path that is looked through; the time at which a replay began
let lens = place.lenses[0]; // of the frame that was visited last: focal lengths in widths and heights of its picture

function eye() {
  if (visiting !== null) return place.path[visiting];
  return pose(walker.x, walker.y + walker.eye, walker.z, walker.yaw, walker.pitch);
}

// Stand where frame `index` of the walk was seen from, and look through its very camera until somebody moves.
function visit(index) {
  const m = place.path[Math.max(0, Math.min(place.path.length - 1, index))];
  visiting = place.path.indexOf(m);
  lens = place.lenses[visiting];
  Object.assign(walker, { x: m[12], y: m[13] - walker.eye, z: m[14] });
  Object.assign(walker, { yaw: Math.atan2(m[8], m[10]), pitch: Math.asin(Math.max(-1, Math.min(1, -m[9]))) });
  changed = true;
}

// The walk's lens, so that its frame fills the window; in a window of quite another shape, not all of it.
function focalIn(width, height) {
  const [low, high] = [lens[0] * width, lens[1] * height].sort((a, b) => a - b);
  return Math.min(high, 1.5 * low);
}

function projection() {
  const focal = focalIn(canvas.width, canvas.height);
  const [x, y] = [(2 * focal) / canvas.width, (2 * focal) / canvas.height];
  return [x, 0, 0, 0, 0, y, 0, 0, 0, 0, -1, -1, 0, 0, -0.02, 0];
}

// ---- sorting

let ticket = 0, asked = 0, answered = 0, wanted = null; // numbers of gazes: the newest, the last sent, the last sorted

function sortFor(view) {
  wanted = [-view[2], -view[6], -view[10], -view[14]];
  ticket++;
  if (asked === answered) ask();
}

function ask() {
  asked = ticket;
  sorter.postMessage({ depth: wanted, ticket });
}

function sorted({ data }) {
  answered = data.ticket;
  renderer.setOrder(data.order);
  changed = true;
  if (answered < ticket) ask();
}

// ---- drawing

let changed = true, seen = "", last = 0, took = 16, scale = 1, waiting = [];

function frame(now) {
  const seconds = Math.min(0.1, (now - last) / 1000 || 0);
  last = now;
  if (session) return;
  requestAnimationFrame(frame);
  if (replaying !== null) replay(now);
  const moved = move(seconds);
  if (moved) took += 0.1 * (1000 * seconds - took);
  scale = !moved ? 1 : took > SLOW ? Math.max(COARSEST, scale * 0.9) : took < FAST ? Math.min(1, scale * 1.05) : scale;
  resize();
  const from = eye(), key = from.join();
  if (key !== seen) {
    seen = key;
    changed = true;
    sortFor(product(rigidInverse(from), place.fromSplats));
  }
  if (changed) {
    changed = false;
    renderer.clear();
    renderer.draw(product(rigidInverse(from), place.fromSplats), projection(), [0, 0, canvas.width, canvas.height]);
    if (answered === ticket && !moved) waiting.splice(0).forEach((done) => done());
  }
}

function resize() {
  const ratio = scale * Math.min(FINEST, devicePixelRatio);
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (width !== canvas.width || height !== canvas.height) {
    Object.assign(canvas, { width, height });
    changed = true;
  }
}

function replay(now) {
  replaying ??= now;
  const index = Math.floor(((now - replaying) / 1000) * FRAMES_PER_SECOND);
  visit(index);
  if (index >= place.path.length) stopReplay();
}

function stopReplay() {
  replaying = null;
  element("replay").setAttribute("aria-pressed", false);
}

// ---- keys, mouse, touch

const held = new Set(), stick = { id: null, x: 0, y: 0, right: 0, ahead: 0 };
const KEYS = { KeyW: "ahead", ArrowUp: "ahead", KeyS: "back", ArrowDown: "back", KeyA: "left", KeyD: "right",
  ArrowLeft: "turnLeft", ArrowRight: "turnRight", KeyE: "up", KeyQ: "down", ShiftLeft: "run", ShiftRight: "run" };

function move(seconds) {
  const side = (a, b) => held.has(a) - held.has(b);
  const right = side("right", "left") + stick.right, ahead = side("ahead", "back") + stick.ahead;
  const up = walker.flying ? side("up", "down") : 0, turn = side("turnLeft", "turnRight");
  if (!right && !ahead && !up && !turn) return false;
  takeOver();
  walker.running = held.has("run");
  walker.turn(1.5 * turn * seconds, 0);
  walker.step(seconds, right, ahead, up);
  return true;
}

// Somebody moves: the frame that was looked through becomes the place to go on from.
function takeOver() {
  visiting = null;
  stopReplay();
}

function look(dx, dy) {
  takeOver();
  const radians = 1 / focalIn(canvas.clientWidth, canvas.clientHeight);
  walker.turn(dx * radians, dy * radians);
}

const actions = {
  KeyP: () => (replaying === null ? startReplay() : stopReplay()),
  KeyR: () => { stopReplay(); visit(0); },
  KeyF: () => { walker.flying = !walker.flying; element("fly").setAttribute("aria-pressed", walker.flying); },
  KeyH: () => (element("keys").open ? element("keys").close() : element("keys").showModal()),
};

function startReplay() {
  replaying = performance.now();
  element("replay").setAttribute("aria-pressed", true);
}

function listen() {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (KEYS[event.code]) { held.add(KEYS[event.code]); event.preventDefault(); }
    else if (actions[event.code] && !event.repeat) actions[event.code]();
  });
  addEventListener("keyup", (event) => held.delete(KEYS[event.code]));
  addEventListener("blur", () => held.clear());
  for (const [id, code] of [["replay", "KeyP"], ["restart", "KeyR"], ["fly", "KeyF"], ["help", "KeyH"]]) {
    element(id).addEventListener("click", (event) => { event.currentTarget.blur(); actions[code](); });
  }
  const pointers = new Map(); // those that look around: pointer -> where it was and how far it has come
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus();
    try { canvas.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone already */ }
    if (event.pointerType === "touch" && event.clientX < innerWidth / 2 && stick.id === null) {
      Object.assign(stick, { id: event.pointerId, x: event.clientX, y: event.clientY });
      Object.assign(element("stick").style, { left: `${event.clientX}px`, top: `${event.clientY}px` });
      element("stick").hidden = false;
    } else pointers.set(event.pointerId, [event.clientX, event.clientY, 0]);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (document.pointerLockElement === canvas) return look(-event.movementX, -event.movementY);
    if (event.pointerId === stick.id) return tilt(event.clientX - stick.x, event.clientY - stick.y);
    const was = pointers.get(event.pointerId);
    if (!was) return;
    const [dx, dy] = [event.clientX - was[0], event.clientY - was[1]];
    pointers.set(event.pointerId, [event.clientX, event.clientY, was[2] + Math.abs(dx) + Math.abs(dy)]);
    look(dx, dy);
  });
  const lift = (event) => {
    if (event.pointerId === stick.id) {
      Object.assign(stick, { id: null, right: 0, ahead: 0 });
      element("stick").hidden = true;
    }
    const was = pointers.get(event.pointerId);
    pointers.delete(event.pointerId);
    if (was && was[2] < 4 && event.type === "pointerup" && event.pointerType === "mouse") canvas.requestPointerLock?.();
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
}

function tilt(dx, dy) {
  const length = Math.max(1, Math.hypot(dx, dy) / 45);
  Object.assign(stick, { right: dx / 45 / length, ahead: -dy / 45 / length });
  element("stick").firstElementChild.style.transform = `translate(${dx / length}px, ${dy / length}px)`;
}

// ---- headset

let session = null, base = null, turned = false;

async function enter() {
  session = await navigator.xr.requestSession("immersive-vr", { optionalFeatures: ["local-floor"] });
  const gl = renderer.gl;
  await gl.makeXRCompatible();
  session.updateRenderState({ baseLayer: new XRWebGLLayer(session, gl, { antialias: false, depth: false }) });
  let floor = 0; // how far above the floor the origin of the headset's space is, of this world's metres
  try { base = await session.requestReferenceSpace("local-floor"); }
  catch { base = await session.requestReferenceSpace("local"); floor = walker.eye; }
  takeOver();
  session.addEventListener("end", () => { session = null; changed = true; requestAnimationFrame(frame); });
  let before = 0;
  const draw = (now, xr) => {
    if (!session) return;
    session.requestAnimationFrame(draw);
    const seconds = Math.min(0.1, (now - before) / 1000 || 0), viewer = xr.getViewerPose(base);
    before = now;
    if (!viewer) return;
    thumbs(seconds, viewer.transform.matrix);
    const room = pose(walker.x, walker.y + floor, walker.z, walker.yaw, 0), layer = session.renderState.baseLayer;
    const seenFrom = (matrix) => product(rigidInverse(product(room, shrunk(matrix))), place.fromSplats);
    sortFor(seenFrom(viewer.transform.matrix));
    renderer.clear(layer.framebuffer);
    for (const view of viewer.views) {
      const { x, y, width, height } = layer.getViewport(view);
      renderer.draw(seenFrom(view.transform.matrix), view.projectionMatrix, [x, y, width, height]);
    }
  };
  session.requestAnimationFrame(draw);
}

// A head's place in the room, for a body of another size than the wearer's.
function shrunk(matrix) {
  const m = Array.from(matrix);
  for (let k = 12; k < 15; k++) m[k] *= walker.size;
  return m;
}

// The left stick walks where the head looks, the right one turns by 30 degrees at a time.
function thumbs(seconds, head) {
  for (const { gamepad, handedness } of session.inputSources) {
    const [x, y] = gamepad?.axes.slice(-2) ?? [0, 0];
    if (handedness === "right") {
      if (Math.abs(x) > 0.6 && !turned) walker.turn((-Math.sign(x) * Math.PI) / 6, 0);
      turned = Math.abs(x) > 0.6;
    } else if (Math.hypot(x, y) > 0.15) {
      walker.step(seconds, x, -y, 0, walker.yaw + Math.atan2(head[8], head[10]));
    }
  }
}

// ---- beginning

// For those who script the page: where one is, `visit(frame)`, and a promise of a picture that is finished.
globalThis.photowalk = {
  visit,
  get position() { return [walker.x, walker.y + walker.eye, walker.z]; },
  get splats() { return total; },
  get frames() { return place.path.length; },
  settled: () => new Promise((done) => { waiting.push(done); changed = true; }),
};

try {
  await load();
  visit(0);
  listen();
  element("loading").hidden = true;
  element("controls").hidden = false;
  if (await navigator.xr?.isSessionSupported("immersive-vr").catch(() => false)) {
    element("headset").hidden = false;
    element("headset").addEventListener("click", () => enter().catch((error) => { session = null; alert(error.message); }));
  }
  requestAnimationFrame(frame);
} catch (error) {
  element("status").textContent = `This place cannot be shown: ${error.message}`;
}
