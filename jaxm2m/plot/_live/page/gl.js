// The scene: cortex coloured by the field, scalp and casing as glass, windings; drawn when something has changed.

const SKIN = [0.91, 0.804, 0.722];
const CASING = [0.62, 0.69, 0.77];
const REFUSED = [0.8, 0.18, 0.12];
const COPPER = [0.706, 0.337, 0.122];
const BRAIN = [0.79, 0.76, 0.722];

const SURFACE_VERTEX = `#version 300 es
uniform mat4 view; uniform mat4 pose; uniform mat3 turned;
in vec3 position; in vec3 normal; in float value; in float known; in float fold;
out vec3 n; out float v; out float k; out float f;
void main() {
  vec4 world = pose * vec4(position, 1.0);
  gl_Position = view * world;
  n = turned * (mat3(pose) * normal);
  v = value; k = known; f = fold;
}`;

const LIGHT = `
const vec3 light = normalize(vec3(-0.45, 0.55, 1.0));
const vec3 halfway = normalize(vec3(-0.45, 0.55, 2.2));
vec3 shade(vec3 rgb, vec3 m, float dark) {
  float lit = clamp(dot(m, light), 0.0, 1.0);
  float shine = pow(clamp(dot(m, halfway), 0.0, 1.0), 30.0);
  return clamp(rgb * (dark + (1.0 - dark) * lit) * 1.04 + 0.07 * shine, 0.0, 1.0);
}`;

const CORTEX_FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D lut; uniform vec2 range; uniform vec3 colour;
in vec3 n; in float v; in float k; in float f; out vec4 result;
${LIGHT}
void main() {
  float share = clamp((v - range.x) / (range.y - range.x), 0.0, 1.0);
  float strong = range.x < 0.0 ? abs(2.0 * share - 1.0) : share;
  vec3 field = texture(lut, vec2((share * 255.0 + 0.5) / 256.0, 0.5)).rgb * (f + (1.0 - f) * 0.5 * strong);
  vec3 rgb = mix(colour * f, field, smoothstep(0.35, 0.65, k));
  result = vec4(shade(rgb, normalize(n), 0.55), 1.0);
}`;

const GLASS_FRAGMENT = `#version 300 es
precision mediump float;
uniform vec3 colour; uniform vec2 alpha;
in vec3 n; in float v; in float k; in float f; out vec4 result;
${LIGHT}
void main() {
  vec3 m = normalize(n);
  float rim = 1.0 - clamp(m.z, 0.0, 1.0);
  result = vec4(shade(colour, m, 0.6), alpha.x + alpha.y * rim * rim);
}`;

const WIRE_VERTEX = `#version 300 es
uniform mat4 view; uniform mat4 pose; uniform vec2 size; uniform float width;
in vec2 corner; in vec3 start; in vec3 end;
void main() {
  vec4 a = view * pose * vec4(start, 1.0); vec4 b = view * pose * vec4(end, 1.0);
  vec2 along = (b.xy - a.xy) * size;
  vec2 side = length(along) > 1e-4 ? normalize(vec2(-along.y, along.x)) : vec2(0.0, 1.0);
  vec4 p = mix(a, b, corner.x);
  gl_Position = vec4(p.xy + side * corner.y * width / size, p.z, 1.0);
}`;

const FLAT_FRAGMENT = `#version 300 es
precision mediump float;
uniform vec3 colour; out vec4 result;
void main() { result = vec4(colour, 1.0); }`;

const LAYER_VERTEX = `#version 300 es
void main() { gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0); }`;

const LAYER_FRAGMENT = `#version 300 es
precision highp float;
uniform highp sampler2D colour; uniform highp sampler2D depth; out vec4 result;
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  result = texelFetch(colour, at, 0);
  gl_FragDepth = texelFetch(depth, at, 0).r;
}`;

function makeScene(canvas, meshes) {
  // without a graphics card smooth edges cost more than all else, and what has not moved is kept from the last picture
  const slow = isSoftware();
  const gl = canvas.getContext("webgl2", { antialias: !slow, alpha: false, powerPreference: "high-performance" });
  if (!gl) return null;
  const programs = {
    cortex: link(gl, SURFACE_VERTEX, CORTEX_FRAGMENT),
    glass: link(gl, SURFACE_VERTEX, GLASS_FRAGMENT),
    wires: link(gl, WIRE_VERTEX, FLAT_FRAGMENT),
  };
  const names = ["position", "normal", "value", "known", "fold"];
  for (const program of [programs.cortex, programs.glass]) names.forEach((name, i) => gl.bindAttribLocation(program.id, i, name));
  ["corner", "start", "end"].forEach((name, i) => gl.bindAttribLocation(programs.wires.id, i, name));
  if (slow) programs.layer = link(gl, LAYER_VERTEX, LAYER_FRAGMENT);
  for (const program of Object.values(programs)) program.finish();
  const lay = slow ? makeLayer(gl, programs.layer) : null;

  const inside = integers(meshes.cortex.inside);
  const cortex = upload(gl, meshes.cortex, inside);
  const scalp = upload(gl, meshes.scalp);
  const casing = meshes.casing ? upload(gl, meshes.casing) : null;
  const wires = uploadWires(gl, floats(meshes.wires));
  const values = new Float32Array(cortex.count);
  const known = new Uint8Array(cortex.count);
  const luts = Object.fromEntries(Object.entries(meshes.luts).map(([name, table]) => [name, uploadLut(gl, bytes(table))]));
  const unit = new Float32Array([1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
  let wasKnown = null;

  function setField(field) {
    // not finite: the map has no field for this pose
    const covered = field.length > 0 && Number.isFinite(field[0]);
    if (covered) for (let i = 0; i < inside.length; i++) values[inside[i]] = field[i];
    if (covered !== wasKnown) {
      for (let i = 0; i < inside.length; i++) known[inside[i]] = covered ? 255 : 0;
      gl.bindBuffer(gl.ARRAY_BUFFER, cortex.known);
      gl.bufferData(gl.ARRAY_BUFFER, known, gl.DYNAMIC_DRAW);
      wasKnown = covered;
    }
    gl.bindBuffer(gl.ARRAY_BUFFER, cortex.value);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW);
  }

  function draw(camera, pose, look) {
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(1, 1, 1, 1);
    gl.enable(gl.DEPTH_TEST);
    gl.enable(gl.CULL_FACE);
    gl.disable(gl.BLEND);
    const { right, up, towards } = camera.axes();
    const turned = new Float32Array([0, 1, 2].flatMap((i) => [right[i], up[i], towards[i]]));
    const view = camera.matrix();
    const coil = new Float32Array(16);
    for (let r = 0; r < 4; r++) for (let c = 0; c < 4; c++) coil[4 * c + r] = pose[4 * r + c];

    const colourCortex = () => {
      const body = programs.cortex.use({ view, pose: unit, turned, range: look.range, colour: BRAIN });
      gl.bindTexture(gl.TEXTURE_2D, luts[look.component]);
      gl.uniform1i(body.lut, 0);
    };
    const begin = () => {
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      colourCortex();
      cortex.draw(0);
    };
    if (lay) lay(canvas.width, canvas.height, view.join(), begin);
    else begin();
    colourCortex();
    cortex.draw(1);
    glass(scalp, unit, SKIN, look.scalp);
    if (wires.count && !look.hidden) {
      gl.disable(gl.CULL_FACE);
      const width = clamp(0.9 * camera.scale() * (canvas.height / camera.height), 1.2, 3.5);
      programs.wires.use({ view, pose: coil, size: [canvas.width, canvas.height], width, colour: COPPER });
      wires.draw();
      gl.enable(gl.CULL_FACE);
    }
    if (casing && !look.hidden) glass(casing, coil, look.refused ? REFUSED : CASING, look.refused ? [0.3, 0.5] : [0.16, 0.5]);
    function glass(mesh, place, colour, alpha) {
      // the nearest side alone: what is behind it is drawn already
      programs.glass.use({ view, pose: place, turned, colour, alpha });
      gl.colorMask(false, false, false, false);
      mesh.draw();
      gl.colorMask(true, true, true, true);
      gl.depthFunc(gl.LEQUAL);
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
      mesh.draw();
      gl.disable(gl.BLEND);
      gl.depthFunc(gl.LESS);
    }
  }

  // waits until the picture is there: for measuring
  const finish = () => gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  // colours of a row through the middle of the picture that was just drawn
  function sample() {
    const row = new Uint8Array(4 * canvas.width);
    gl.readPixels(0, canvas.height >> 1, canvas.width, 1, gl.RGBA, gl.UNSIGNED_BYTE, row);
    return Array.from({ length: canvas.width }, (_, i) => [...row.slice(4 * i, 4 * i + 3)]);
  }
  const free = () => gl.getExtension("WEBGL_lose_context")?.loseContext();
  return { setField, draw, finish, sample, free, values, inside };
}

const view8 = (d) => (d instanceof DataView ? new Uint8Array(d.buffer, d.byteOffset, d.byteLength) : new Uint8Array(d));
const bytes = (d) => view8(d);
const aligned = (d) => view8(d).slice().buffer;
const floats = (d) => new Float32Array(aligned(d));
const integers = (d) => new Uint32Array(aligned(d));

function link(gl, vertex, fragment) {
  const id = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(id, shader);
  }
  const where = {};
  const finish = () => {
    gl.linkProgram(id);
    if (!gl.getProgramParameter(id, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(id));
    const count = gl.getProgramParameter(id, gl.ACTIVE_UNIFORMS);
    for (let i = 0; i < count; i++) {
      const { name } = gl.getActiveUniform(id, i);
      where[name] = gl.getUniformLocation(id, name);
    }
  };
  const use = (uniforms) => {
    gl.useProgram(id);
    for (const [name, value] of Object.entries(uniforms)) {
      if (typeof value === "number") gl.uniform1f(where[name], value);
      else if (value.length === 2) gl.uniform2fv(where[name], value);
      else if (value.length === 3) gl.uniform3fv(where[name], value);
      else if (value.length === 9) gl.uniformMatrix3fv(where[name], false, value);
      else gl.uniformMatrix4fv(where[name], false, value);
    }
    return where;
  };
  return { id, finish, use };
}

// triangles with a corner among the coloured vertices are drawn as the second part
function upload(gl, mesh, coloured = []) {
  const vertices = floats(mesh.vertices);
  const [triangles, still] = partition(integers(mesh.triangles), vertices.length / 3, coloured);
  const count = vertices.length / 3;
  const array = gl.createVertexArray();
  gl.bindVertexArray(array);
  const buffer = (place, size, data, kind, normalized) => {
    const id = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, id);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, size, kind, normalized, 0, 0);
    return id;
  };
  buffer(0, 3, vertices, gl.FLOAT, false);
  buffer(1, 3, vertexNormals(vertices, triangles), gl.FLOAT, false);
  let value, known;
  if (mesh.fold) {
    value = buffer(2, 1, new Float32Array(count), gl.FLOAT, false);
    known = buffer(3, 1, new Uint8Array(count), gl.UNSIGNED_BYTE, true);
    buffer(4, 1, bytes(mesh.fold), gl.UNSIGNED_BYTE, true);
  }
  const index = gl.createBuffer();
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, index);
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, triangles, gl.STATIC_DRAW);
  gl.bindVertexArray(null);
  const parts = [[0, still], [still, triangles.length - still]];
  const draw = (part = 0) => {
    gl.bindVertexArray(array);
    gl.drawElements(gl.TRIANGLES, parts[part][1], gl.UNSIGNED_INT, 4 * parts[part][0]);
  };
  return { count, draw, value, known };
}

function partition(triangles, count, coloured) {
  const marked = new Uint8Array(count);
  for (const i of coloured) marked[i] = 1;
  const out = new Uint32Array(triangles.length);
  let [first, last] = [0, triangles.length];
  for (let t = 0; t < triangles.length; t += 3) {
    const corners = triangles.subarray(t, t + 3);
    if (marked[corners[0]] || marked[corners[1]] || marked[corners[2]]) out.set(corners, (last -= 3));
    else {
      out.set(corners, first);
      first += 3;
    }
  }
  return [out, first];
}

function isSoftware() {
  const gl = document.createElement("canvas").getContext("webgl2");
  const name = gl?.getExtension("WEBGL_debug_renderer_info");
  const software = /swiftshader|llvmpipe|softpipe|software|basic render/i.test(name ? gl.getParameter(name.UNMASKED_RENDERER_WEBGL) : "");
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return software;
}

// the cortex that stays grey is drawn when the view has changed, and laid, with its depth, under each new picture
function makeLayer(gl, program) {
  const frame = gl.createFramebuffer();
  const [colour, depth] = [gl.createTexture(), gl.createTexture()];
  const array = gl.createVertexArray();
  let [width, height, drawn] = [0, 0, ""];

  function resize() {
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    for (const [texture, inner, outer, kind, place] of [
      [colour, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, gl.COLOR_ATTACHMENT0],
      [depth, gl.DEPTH_COMPONENT24, gl.DEPTH_COMPONENT, gl.UNSIGNED_INT, gl.DEPTH_ATTACHMENT],
    ]) {
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.texImage2D(gl.TEXTURE_2D, 0, inner, width, height, 0, outer, kind, null);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
      gl.framebufferTexture2D(gl.FRAMEBUFFER, place, gl.TEXTURE_2D, texture, 0);
    }
  }

  return function lay(w, h, key, draw) {
    if (w !== width || h !== height) {
      [width, height, drawn] = [w, h, ""];
      resize();
    }
    if (key !== drawn) {
      gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
      draw();
      drawn = key;
    }
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    const where = program.use({});
    gl.uniform1i(where.colour, 0);
    gl.uniform1i(where.depth, 1);
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, depth);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, colour);
    gl.bindVertexArray(array);
    gl.depthFunc(gl.ALWAYS);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    gl.depthFunc(gl.LESS);
  };
}

// two triangles a wire in one buffer: instances of four vertices are slow without a graphics card
function uploadWires(gl, ends) {
  const count = ends.length / 6;
  const corners = [[0, -1], [1, -1], [0, 1], [0, 1], [1, -1], [1, 1]];
  const data = new Float32Array(count * 6 * 8);
  for (let i = 0; i < count; i++)
    corners.forEach((corner, k) => {
      data.set(corner, 8 * (6 * i + k));
      data.set(ends.subarray(6 * i, 6 * i + 6), 8 * (6 * i + k) + 2);
    });
  const array = gl.createVertexArray();
  gl.bindVertexArray(array);
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
  for (const [place, size, offset] of [[0, 2, 0], [1, 3, 8], [2, 3, 20]]) {
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, size, gl.FLOAT, false, 32, offset);
  }
  gl.bindVertexArray(null);
  const draw = () => {
    gl.bindVertexArray(array);
    gl.drawArrays(gl.TRIANGLES, 0, 6 * count);
  };
  return { count, draw };
}

function uploadLut(gl, table) {
  const id = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, id);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, 256, 1, 0, gl.RGB, gl.UNSIGNED_BYTE, table);
  for (const [name, value] of [["MIN_FILTER", "LINEAR"], ["MAG_FILTER", "LINEAR"], ["WRAP_S", "CLAMP_TO_EDGE"], ["WRAP_T", "CLAMP_TO_EDGE"]])
    gl.texParameteri(gl.TEXTURE_2D, gl[`TEXTURE_${name}`], gl[value]);
  return id;
}

function vertexNormals(vertices, triangles) {
  const out = new Float32Array(vertices.length);
  for (let t = 0; t < triangles.length; t += 3) {
    const [a, b, c] = [3 * triangles[t], 3 * triangles[t + 1], 3 * triangles[t + 2]];
    const [ux, uy, uz] = [vertices[b] - vertices[a], vertices[b + 1] - vertices[a + 1], vertices[b + 2] - vertices[a + 2]];
    const [wx, wy, wz] = [vertices[c] - vertices[a], vertices[c + 1] - vertices[a + 1], vertices[c + 2] - vertices[a + 2]];
    const [nx, ny, nz] = [uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx];
    for (const i of [a, b, c]) {
      out[i] += nx;
      out[i + 1] += ny;
      out[i + 2] += nz;
    }
  }
  return out;
}
