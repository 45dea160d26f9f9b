// Reads .spz version 3 (github.com/nianticlabs/spz): gzip around columns of fixed-point and 8-bit numbers.

const SLICE = 1 << 20; // letters of base64 that are decoded at once; a data: URL of the whole would be too long for some

async function unpacked(id) {
  const text = document.getElementById(id).textContent.trim();
  document.getElementById(id).remove();
  let at = 0;
  const packed = new ReadableStream({
    pull(stream) {
      if (at >= text.length) return stream.close();
      stream.enqueue(Uint8Array.from(atob(text.slice(at, (at += SLICE))), (letter) => letter.charCodeAt(0)));
    },
  });
  return new Uint8Array(await new Response(packed.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
}

// -> centres [3 N] for the sorter, and 12 words a splat for the texture: centre, rgba in a word, covariance
// (xx xy xz yy yz zz), two spare.
function decodeSplats(bytes) {
  const head = new DataView(bytes.buffer);
  if (head.getUint32(0, true) !== 0x5053474e || head.getUint32(4, true) !== 3) throw Error("the splats are damaged");
  const total = head.getUint32(8, true), unit = 1 / (1 << bytes[13]);
  const [alphas, colours, scales, turns] = [9, 10, 13, 16].map((width) => 16 + total * width);
  const centres = new Float32Array(3 * total);
  const words = new Uint32Array(12 * total), numbers = new Float32Array(words.buffer);
  const quaternion = [0, 0, 0, 0];
  for (let i = 0; i < total; i++) {
    const at = 12 * i;
    for (let k = 0; k < 3; k++) {
      const from = 16 + 9 * i + 3 * k;
      const fixed = (bytes[from] << 8) | (bytes[from + 1] << 16) | (bytes[from + 2] << 24);
      centres[3 * i + k] = numbers[at + k] = (fixed >> 8) * unit;
    }
    let colour = bytes[alphas + i] << 24;
    for (let k = 0; k < 3; k++) {
      const harmonic = (bytes[colours + 3 * i + k] / 255 - 0.5) / 0.15;
      colour |= Math.max(0, Math.min(255, Math.round(255 * (0.28209479177387814 * harmonic + 0.5)))) << (8 * k);
    }
    words[at + 3] = colour;
    unpackTurn(head.getUint32(turns + 4 * i, true), quaternion);
    const s = [0, 1, 2].map((k) => Math.exp(bytes[scales + 3 * i + k] / 16 - 10));
    numbers.set(covariance(quaternion, s), at + 4);
  }
  return { total, centres, words };
}

// The largest of x, y, z, w is left out (its number is in the two highest bits); the others have a sign and 9 bits.
function unpackTurn(word, q) {
  const largest = word >>> 30;
  let squares = 0;
  for (let k = 3; k >= 0; k--) {
    if (k === largest) continue;
    const size = (Math.SQRT1_2 * (word & 511)) / 511;
    q[k] = word & 512 ? -size : size;
    word >>>= 10;
    squares += q[k] * q[k];
  }
  q[largest] = Math.sqrt(Math.max(0, 1 - squares));
}

function covariance([x, y, z, w], [sx, sy, sz]) {
  const m = [
    (1 - 2 * (y * y + z * z)) * sx, 2 * (x * y - w * z) * sy, 2 * (x * z + w * y) * sz,
    2 * (x * y + w * z) * sx, (1 - 2 * (x * x + z * z)) * sy, 2 * (y * z - w * x) * sz,
    2 * (x * z - w * y) * sx, 2 * (y * z + w * x) * sy, (1 - 2 * (x * x + y * y)) * sz,
  ];
  const dot = (a, b) => m[3 * a] * m[3 * b] + m[3 * a + 1] * m[3 * b + 1] + m[3 * a + 2] * m[3 * b + 2];
  return [dot(0, 0), dot(0, 1), dot(0, 2), dot(1, 1), dot(1, 2), dot(2, 2)];
}
