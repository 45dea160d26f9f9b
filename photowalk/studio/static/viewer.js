// Runs in the viewer's frame before the viewer, and spares it what costs a slow machine much and shows nothing.

// Nothing in the scene is lit, so the light of a surrounding, which the viewer brings along, is not unpacked.
const load = window.fetch;
window.fetch = (what, options) =>
  (what.url ?? String(what)).startsWith("data:image/jpeg") ? new Promise(() => {}) : load.call(window, what, options);

// Where there is no GPU it draws coarsely; smooth edges would make every frame twice as dear.
if (new URLSearchParams(location.search).has("fixedDpr")) {
  const { getContext } = HTMLCanvasElement.prototype;
  HTMLCanvasElement.prototype.getContext = function (kind, options) {
    return getContext.call(this, kind, kind.startsWith("webgl") ? { ...options, antialias: false } : options);
  };
}
