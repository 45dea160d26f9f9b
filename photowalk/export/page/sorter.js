// A worker that puts splats in order, farthest first, by counting. It is sent the centres [3 N] once and then, for each
// gaze, the row of the view matrix that gives depth; splats behind the eye are left out.
const STEPS = 1 << 16;
const counts = new Uint32Array(STEPS + 1);
let centres, steps;

onmessage = ({ data }) => {
  if (data.centres) {
    centres = data.centres;
    steps = new Uint32Array(centres.length / 3);
    return;
  }
  const [a, b, c, d] = data.depth, total = steps.length;
  let nearest = Infinity, farthest = 0;
  const depths = new Float32Array(total);
  for (let i = 0, j = 0; i < total; i++, j += 3) {
    const depth = (depths[i] = a * centres[j] + b * centres[j + 1] + c * centres[j + 2] + d);
    if (depth > 0) {
      if (depth < nearest) nearest = depth;
      if (depth > farthest) farthest = depth;
    }
  }
  // Steps of equal ratio: what is near is told apart finely, and a far sky costs nothing.
  nearest = Math.max(nearest, 1e-2);
  const perStep = (STEPS - 1) / Math.max(Math.log(farthest / nearest), 1e-6);
  counts.fill(0);
  let shown = 0;
  for (let i = 0; i < total; i++) {
    if (!(depths[i] >= nearest)) {
      steps[i] = STEPS;
      continue;
    }
    const step = STEPS - 1 - ((Math.log(depths[i] / nearest) * perStep) | 0);
    steps[i] = step;
    counts[step + 1]++;
    shown++;
  }
  for (let k = 1; k <= STEPS; k++) counts[k] += counts[k - 1];
  const order = new Uint32Array(shown);
  for (let i = 0; i < total; i++) if (steps[i] < STEPS) order[counts[steps[i]]++] = i;
  postMessage({ order, ticket: data.ticket }, [order.buffer]);
};
