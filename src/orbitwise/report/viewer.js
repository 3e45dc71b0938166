// Balls and sticks as one lit mesh, one view for each section that has structures. Positions, bonds and
// colours come from the data beside the view.
(function () {
  function sphere(level) {
    const t = (1 + Math.sqrt(5)) / 2;
    let points = [[-1, t, 0], [1, t, 0], [-1, -t, 0], [1, -t, 0], [0, -1, t], [0, 1, t], [0, -1, -t], [0, 1, -t],
                  [t, 0, -1], [t, 0, 1], [-t, 0, -1], [-t, 0, 1]];
    let faces = [[0, 11, 5], [0, 5, 1], [0, 1, 7], [0, 7, 10], [0, 10, 11], [1, 5, 9], [5, 11, 4], [11, 10, 2],
                 [10, 7, 6], [7, 1, 8], [3, 9, 4], [3, 4, 2], [3, 2, 6], [3, 6, 8], [3, 8, 9], [4, 9, 5],
                 [2, 4, 11], [6, 2, 10], [8, 6, 7], [9, 8, 1]];
    for (let n = 0; n < level; n++) {
      const seen = new Map(), next = [];
      const middle = (a, b) => {
        const key = a < b ? a + "_" + b : b + "_" + a;
        if (!seen.has(key)) {
          seen.set(key, points.length);
          points.push(points[a].map((v, k) => (v + points[b][k]) / 2));
        }
        return seen.get(key);
      };
      for (const [a, b, c] of faces) {
        const ab = middle(a, b), bc = middle(b, c), ca = middle(c, a);
        next.push([a, ab, ca], [b, bc, ab], [c, ca, bc], [ab, bc, ca]);
      }
      points = points.map((p) => { const r = Math.hypot(...p); return p.map((v) => v / r); });
      faces = next;
    }
    points = points.map((p) => { const r = Math.hypot(...p); return p.map((v) => v / r); });
    return { points, faces };
  }

  function mesh(model, positions, ball) {
    const out = { x: [], y: [], z: [], i: [], j: [], k: [], colour: [] };
    const vertex = (p, c) => { out.x.push(p[0]); out.y.push(p[1]); out.z.push(p[2]); out.colour.push(c); };
    const face = (a, b, c) => { out.i.push(a); out.j.push(b); out.k.push(c); };
    positions.forEach((centre, a) => {
      const start = out.x.length;
      for (const p of ball.points) vertex(p.map((v, k) => centre[k] + model.radii[a] * v), model.colours[a]);
      for (const f of ball.faces) face(start + f[0], start + f[1], start + f[2]);
    });
    const sides = 14, radius = 0.11;
    for (const [a, b] of model.bonds) {
      const p = positions[a], q = positions[b], d = q.map((v, k) => v - p[k]);
      const length = Math.hypot(...d) || 1, w = d.map((v) => v / length);
      const pick = Math.abs(w[0]) < 0.7 ? [1, 0, 0] : [0, 1, 0];
      let u = [w[1] * pick[2] - w[2] * pick[1], w[2] * pick[0] - w[0] * pick[2], w[0] * pick[1] - w[1] * pick[0]];
      const size = Math.hypot(...u); u = u.map((v) => v / size);
      const v = [w[1] * u[2] - w[2] * u[1], w[2] * u[0] - w[0] * u[2], w[0] * u[1] - w[1] * u[0]];
      // each half in the colour of its atom; the seam is where the visible parts of the stick are equal
      const seam = 0.5 + (model.radii[a] - model.radii[b]) / (2 * length);
      [[0, seam, model.colours[a]], [seam, 1, model.colours[b]]].forEach(([from, to, colour]) => {
        const start = out.x.length;
        for (const at of [from, to]) for (let s = 0; s < sides; s++) {
          const angle = 2 * Math.PI * s / sides, cos = radius * Math.cos(angle), sin = radius * Math.sin(angle);
          vertex(p.map((c, k) => c + at * d[k] + cos * u[k] + sin * v[k]), colour);
        }
        for (let s = 0; s < sides; s++) {
          const n = (s + 1) % sides;
          face(start + s, start + n, start + sides + s);
          face(start + n, start + sides + n, start + sides + s);
        }
      });
    }
    return out;
  }

  // The same from the front without WebGL: sticks and balls from back to front, as a drawing.
  function flat(model, positions, extent) {
    const parts = (model.edges || []).map(([p, q]) => [(p[2] + q[2]) / 2,
      `<line x1="${p[0]}" y1="${-p[1]}" x2="${q[0]}" y2="${-q[1]}" stroke="#8a94a3" stroke-width="0.05"/>`]);
    for (const [a, b] of model.bonds) {
      const p = positions[a], q = positions[b], m = p.map((v, k) => (v + q[k]) / 2);
      [[p, m, a], [m, q, b]].forEach(([from, to, atom]) => {
        const ends = `x1="${from[0]}" y1="${-from[1]}" x2="${to[0]}" y2="${-to[1]}"`;
        parts.push([(from[2] + to[2]) / 2, `<line ${ends} stroke="#3b4656" stroke-width="0.25"/>` +
          `<line ${ends} stroke="${model.colours[atom]}"/>`]);
      });
    }
    positions.forEach((p, a) => parts.push([p[2] + model.radii[a],
      `<circle cx="${p[0]}" cy="${-p[1]}" r="${model.radii[a]}" fill="${model.colours[a]}"/>`]));
    const r = 0.9 * extent, body = parts.sort((s, t) => s[0] - t[0]).map((s) => s[1]).join("");
    return `<svg viewBox="${-r} ${-r} ${2 * r} ${2 * r}" width="100%" height="100%"><g stroke-width="0.2">` +
      body.replaceAll("<circle", '<circle stroke="#3b4656" stroke-width="0.03"') + "</g></svg>";
  }

  function view(target) {
    const section = target.closest("section");
    const model = JSON.parse(section.querySelector("script.structures").textContent), r = model.extent;
    // one molecule in many shapes, or crystals that each have their own atoms
    const items = model.items || model.structures.map((positions) => ({ ...model, positions }));
    const choices = section.querySelectorAll("[data-structure]");
    let shown = 0;
    const ball = sphere(Math.max(...items.map((item) => item.symbols.length)) > 120 ? 1 : 2);
    const hidden = { visible: false, range: [-r, r], showspikes: false };
    const layout = {
      margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", showlegend: false, autosize: true,
      scene: { xaxis: hidden, yaxis: hidden, zaxis: hidden, aspectmode: "cube", dragmode: "orbit",
               uirevision: "kept", camera: { eye: { x: 0, y: 0, z: model.items ? 1.35 : 1.1 }, up: { x: 0, y: 1, z: 0 },
               projection: { type: "perspective" } } },
    };
    const config = { displaylogo: false, responsive: true, displayModeBar: false, scrollZoom: true };
    const light = { ambient: 0.55, diffuse: 0.75, specular: 0.25, roughness: 0.35, fresnel: 0.05 };
    const canvas = document.createElement("canvas");
    const solid = !!(canvas.getContext("webgl2") || canvas.getContext("webgl"));
    function show(n) {
      const item = items[n], at = item.positions;
      shown = n;
      mark(n);
      if (!solid) {
        target.innerHTML = flat(item, at, r);
        return;
      }
      const m = mesh(item, at, ball);
      const shape = { type: "mesh3d", x: m.x, y: m.y, z: m.z, i: m.i, j: m.j, k: m.k, vertexcolor: m.colour,
                      hoverinfo: "skip", flatshading: false, lighting: light,
                      lightposition: { x: 2000, y: 4000, z: 8000 } };
      const names = { type: "scatter3d", mode: "markers", x: at.map((p) => p[0]), y: at.map((p) => p[1]),
                      z: at.map((p) => p[2]), marker: { size: 10, opacity: 0.001 }, hoverinfo: "text",
                      text: item.labels || item.symbols.map((s, k) => s + (k + 1)) };
      Plotly.react(target, [shape, names, ...cell(item)], layout, config);
    }
    function cell(item) {
      if (!item.edges) return [];
      const along = (k) => item.edges.flatMap(([p, q]) => [p[k], q[k], null]);
      const place = (k) => item.axes.map((p) => p[k]);
      return [{ type: "scatter3d", mode: "lines", x: along(0), y: along(1), z: along(2), hoverinfo: "skip",
                line: { color: "#8a94a3", width: 3 } },
              { type: "scatter3d", mode: "text", x: place(0), y: place(1), z: place(2), text: place(3),
                hoverinfo: "skip", textfont: { size: 14, color: "#5b6675" } }];
    }
    function mark(n) {
      choices.forEach((node) => {
        const on = Number(node.dataset.structure) === n;
        node.classList.toggle("selected", on);
        if (node.tagName === "BUTTON") node.setAttribute("aria-pressed", on);
      });
      const row = section.querySelector('tr[data-structure="' + n + '"]');
      if (row) section.querySelector(".structure-name").textContent = row.dataset.caption;
    }
    choices.forEach((node) => {
      node.addEventListener("click", () => show(Number(node.dataset.structure)));
    });
    section.querySelectorAll("[data-step]").forEach((node) => {
      const step = Number(node.dataset.step);
      node.addEventListener("click", () => show((shown + step + items.length) % items.length));
    });
    section.querySelectorAll(".more button").forEach((node) => {
      node.addEventListener("click", () => {
        section.querySelectorAll("tr.folded").forEach((row) => row.classList.remove("folded"));
        node.parentElement.remove();
      });
    });
    show(0);
  }

  document.querySelectorAll("script[data-figure]").forEach((node) => {
    const figure = JSON.parse(node.textContent);
    const name = node.dataset.figure, small = name.startsWith("torsion");
    const config = { displaylogo: false, responsive: true, displayModeBar: small ? false : "hover",
                     modeBarButtons: [["toImage", "resetScale2d"]],
                     toImageButtonOptions: { format: "svg", filename: name } };
    Plotly.newPlot(node.parentElement.querySelector(".plot"), figure.data, figure.layout, config);
  });
  document.querySelectorAll(".viewer").forEach(view);
})();
