// The tree of branches, and two of them side by side.

import { $, ask, element, fileOf, frameOf, plural, state, trying } from "./talk.js";

export async function compare() {
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

export function playBoth() {
  for (const side of ["left", "right"]) {
    $(`${side}-video`).currentTime = 0;
    $(`${side}-video`).play();
  }
}
