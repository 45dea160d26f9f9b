// Draws splats with WebGL 2 as photowalk's own renderer does: the same projection, low-pass filter and cut-offs.
// Matrices are column-major; view spaces are x right, y up, z back.

const TEXTURE_WIDTH = 4096;

const VERTEX = `#version 300 es
precision highp float; precision highp int; precision highp usampler2D;
uniform usampler2D splats;
uniform mat4 view, projection;
uniform vec2 size;
in vec2 corner;
in uint index;
out vec2 offset;
out vec4 colour;
uvec4 texel(int k) { return texelFetch(splats, ivec2(k % ${TEXTURE_WIDTH}, k / ${TEXTURE_WIDTH}), 0); }
void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);  // clipped away, unless what follows says where
  int first = 3 * int(index);
  uvec4 head = texel(first);
  vec3 eye = (view * vec4(uintBitsToFloat(head.xyz), 1.0)).xyz;
  float depth = -eye.z;
  if (depth < 0.01) return;
  vec2 focal = 0.5 * size * vec2(projection[0][0], projection[1][1]);
  vec2 middle = 0.5 * size * (1.0 - vec2(projection[2][0], projection[2][1]));
  vec2 slope = eye.xy / depth, margin = 0.15 * size, pixel = focal * slope + middle;
  if (any(lessThan(pixel, -2.0 * margin)) || any(greaterThan(pixel, size + 2.0 * margin))) return;
  colour = vec4(head.w & 255u, (head.w >> 8) & 255u, (head.w >> 16) & 255u, head.w >> 24) / 255.0;
  if (colour.a < 1.0 / 255.0) return;
  vec2 held = clamp(slope, (-margin - middle) / focal, (size + margin - middle) / focal);
  vec4 p = uintBitsToFloat(texel(first + 1));
  vec2 q = uintBitsToFloat(texel(first + 2).xy);
  mat3 spread = mat3(p.x, p.y, p.z, p.y, p.w, q.x, p.z, q.x, q.y);
  vec3 across = (focal.x / depth * vec3(1.0, 0.0, held.x)) * mat3(view);
  vec3 upward = (focal.y / depth * vec3(0.0, 1.0, held.y)) * mat3(view);
  float a = dot(across, spread * across) + 0.3, b = dot(across, spread * upward), c = dot(upward, spread * upward) + 0.3;
  float away = length(vec2(0.5 * (a - c), b)), longer = 0.5 * (a + c) + away;
  float shorter = max(0.5 * (a + c) - away, 0.1);
  vec2 axis = away < 1e-6 ? vec2(1.0, 0.0) : normalize(a > c ? vec2(longer - c, b) : vec2(b, longer - a));
  offset = corner * sqrt(2.0 * log(255.0 * colour.a));
  pixel += axis * sqrt(longer) * offset.x + vec2(-axis.y, axis.x) * sqrt(shorter) * offset.y;
  gl_Position = vec4(2.0 * pixel / size - 1.0, 0.0, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec2 offset;
in vec4 colour;
out vec4 light;
void main() {
  float alpha = min(0.999, colour.a * exp(-0.5 * dot(offset, offset)));
  if (alpha < 1.0 / 255.0) discard;
  light = vec4(colour.rgb * alpha, alpha);
}`;

class Renderer {
  constructor(canvas) {
    const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false, xrCompatible: true });
    if (!gl) throw Error("this browser has no WebGL 2; try another, or switch hardware acceleration on");
    this.gl = gl;
    this.shown = 0;
    this.program = this.#link();
    this.at = Object.fromEntries(
      ["view", "projection", "size"].map((name) => [name, gl.getUniformLocation(this.program, name)]));
    gl.useProgram(this.program);
    gl.bindVertexArray(gl.createVertexArray());
    this.#attribute("corner", new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]));
    this.order = this.#attribute("index", null);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.clearColor(0, 0, 0, 1);
  }

  load(words) {
    const gl = this.gl, perRow = 4 * TEXTURE_WIDTH, rows = Math.ceil(words.length / perRow);
    if (rows > gl.getParameter(gl.MAX_TEXTURE_SIZE)) throw Error("this place is too large for this device");
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA32UI, TEXTURE_WIDTH, rows);
    const whole = Math.floor(words.length / perRow);
    const upload = (row, count, part) => gl.texSubImage2D(
      gl.TEXTURE_2D, 0, 0, row, TEXTURE_WIDTH, count, gl.RGBA_INTEGER, gl.UNSIGNED_INT, part);
    if (whole) upload(0, whole, words.subarray(0, whole * perRow));
    if (whole < rows) {
      const last = new Uint32Array(perRow);
      last.set(words.subarray(whole * perRow));
      upload(whole, 1, last);
    }
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  }

  setOrder(order) {
    const gl = this.gl;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.order);
    gl.bufferData(gl.ARRAY_BUFFER, order, gl.DYNAMIC_DRAW);
    this.shown = order.length;
  }

  clear(framebuffer = null) {
    const gl = this.gl;
    gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
    gl.clear(gl.COLOR_BUFFER_BIT);
  }

  // view: from the splats' axes to the eye's; box: x, y, width, height of the part of the framebuffer to draw in
  draw(view, projection, box) {
    const gl = this.gl;
    gl.viewport(...box);
    gl.uniformMatrix4fv(this.at.view, false, view);
    gl.uniformMatrix4fv(this.at.projection, false, projection);
    gl.uniform2f(this.at.size, box[2], box[3]);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.shown);
  }

  #link() {
    const gl = this.gl, program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw Error(gl.getShaderInfoLog(shader));
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw Error(gl.getProgramInfoLog(program));
    return program;
  }

  #attribute(name, corners) {
    const gl = this.gl, buffer = gl.createBuffer(), place = gl.getAttribLocation(this.program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(place);
    if (corners) {
      gl.bufferData(gl.ARRAY_BUFFER, corners, gl.STATIC_DRAW);
      gl.vertexAttribPointer(place, 2, gl.FLOAT, false, 0, 0);
    } else {
      gl.vertexAttribIPointer(place, 1, gl.UNSIGNED_INT, 0, 0);
      gl.vertexAttribDivisor(place, 1);
    }
    return buffer;
  }
}
