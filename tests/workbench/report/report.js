// The page's own script: zoom in the URL, labels of terms, messages, and the choice of a key.
(function () {
  function begin() {
    const doc = (window.Bokeh.documents || [])[0];
    const time = doc && doc.get_model_by_name("time");
    if (!time) { window.setTimeout(begin, 20); return; }
    moments(time);
    terms(doc, time);
    messages(doc, time);
    processes(doc);
  }

  function onZoom(time, action) {
    let waiting = 0;
    function act() { waiting = 0; action(); }
    function wait() { waiting = waiting || window.requestAnimationFrame(act); }
    time.properties.start.change.connect(wait);
    time.properties.end.change.connect(wait);
    return wait;
  }

  // Keeps the visible time in the URL.
  function moments(time) {
    const first = time.start, last = time.end;
    function go() {
      const found = /^#t=([-+.\de]+),([-+.\de]+)$/.exec(window.location.hash);
      const start = found ? Number(found[1]) : first, end = found ? Number(found[2]) : last;
      if (isFinite(start) && isFinite(end) && start < end) { time.setv({start, end}); }
    }
    let waiting = 0;
    function note() {
      const all = time.start === first && time.end === last;
      const round = (x) => Number(x.toFixed(6));
      const moment = all ? "" : "#t=" + round(time.start) + "," + round(time.end);
      if (moment !== window.location.hash) {
        window.history.replaceState(null, "", moment || window.location.pathname);
      }
    }
    go();
    window.addEventListener("hashchange", go);
    onZoom(time, function () {
      window.clearTimeout(waiting);
      waiting = window.setTimeout(note, 200);
    });
  }

  // Labels the bands with their terms where there is room.
  function terms(doc, time) {
    const bands = doc.get_model_by_name("life");
    const terms = doc.get_model_by_name("terms");
    if (!bands || !terms) { return; }
    function fit() {
      const {left, right, long, short} = terms.data, x = [], text = [];
      const scale = bands.inner_width / (time.end - time.start);
      for (let row = 0; row < left.length; row++) {
        const from = Math.max(left[row], time.start), to = Math.min(right[row], time.end);
        const room = (to - from) * scale - 6, width = (words) => 6.5 * words.length;
        x.push((from + to) / 2);
        text.push([long[row], short[row], ""].find((words) => !words || width(words) <= room));
      }
      terms.data = Object.assign({}, terms.data, {x, text});
    }
    const refit = onZoom(time, fit);
    bands.properties.inner_width.change.connect(refit);
    refit();
  }

  // Shows the operations of the chosen key.
  function processes(doc) {
    const choice = document.getElementById("key");
    const shown = doc.get_model_by_name("shown");
    if (!choice || !shown) { return; }
    const plot = doc.get_model_by_name("processes");
    const sources = [];
    for (let n = 0, source; (source = doc.get_model_by_name("operations " + n)); n++) {
      sources.push(source.data);
    }
    function show() {
      const key = Number(choice.value), rows = {}, processes = new Map();
      for (const name of Object.keys(shown.data)) { rows[name] = []; }
      for (const data of sources) {
        for (let row = 0; row < data.key.length; row++) {
          if (data.key[row] !== key) { continue; }
          for (const name of Object.keys(data)) { (rows[name] || []).push(data[name][row]); }
          rows.middle.push((data.left[row] + data.right[row]) / 2);
          rows.width.push(data.right[row] - data.left[row]);
          rows.low.push([data.process[row], -0.35]);
          rows.high.push([data.process[row], 0.35]);
          processes.set(data.process[row], data.rank[row]);
        }
      }
      const names = Array.from(processes.keys());
      names.sort((one, other) => processes.get(other) - processes.get(one));
      plot.y_range.factors = names;
      plot.height = 70 + 18 * Math.max(2, names.length);
      shown.data = rows;
    }
    choice.addEventListener("change", show);
    show();
  }

  const MOST = 500;  // messages drawn at once
  const LABELLED = 40;  // up to so many messages are labelled with their types
  const LOST = "#D0453E";

  // Draws the messages of the visible time.
  async function messages(doc, time) {
    const journal = document.getElementById("journal");
    const shown = doc.get_model_by_name("messages shown");
    if (!journal || !shown) { return; }
    const bytes = Uint8Array.from(window.atob(journal.textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const all = JSON.parse(await new Response(stream).text());
    const boxes = Array.from(document.querySelectorAll("input.kind"));
    const count = all.sent.length;
    const brief = all.took.filter((took) => took !== null).sort((a, b) => a - b)[count >> 1] || 1000;
    const end = (row) => all.sent[row] + (all.took[row] === null ? brief : all.took[row]);

    function draw() {
      const wanted = boxes.map((box) => box.checked);
      const start = time.start * 1e6, stop = time.end * 1e6, rows = [];
      for (let row = 0; row < count; row++) {
        if (all.sent[row] > stop) { break; }
        if (end(row) >= start && wanted[all.kinds[all.type[row]]]) { rows.push(row); }
      }
      const step = Math.ceil(rows.length / MOST), data = {};
      for (const name of Object.keys(shown.data)) { data[name] = []; }
      for (let place = 0; place < rows.length; place += step) {
        const row = rows[place], type = all.type[row], lost = all.took[row] === null;
        const part = lost ? 0.4 : 1;  // fraction of its way that is drawn
        const x0 = all.sent[row] / 1e6, x1 = x0 + (end(row) / 1e6 - x0) * part;
        const y0 = all.from[row], y1 = y0 + (all.to[row] - y0) * part;
        data.x0.push(x0); data.y0.push(y0); data.x1.push(x1); data.y1.push(y1);
        data.x.push((x0 + x1) / 2); data.y.push((y0 + y1) / 2);
        data.colour.push(lost ? LOST : all.colours[all.kinds[type]]);
        data.dash.push(all.replies[type] ? "dashed" : "solid");
        data.marker.push(lost ? "x" : "circle");
        data.label.push(rows.length <= LABELLED ? all.types[type] : "");
        data.above.push(all.replies[type] ? 9 : -9);
        data.kind.push(all.types[type]); data.who.push(all.who[row]);
        data.sent.push(x0);
        data.received.push(lost ? "not received" : "received at " + (x0 + all.took[row] / 1e6).toFixed(6) + " s");
        data.body.push(all.body[row]);
      }
      shown.data = data;
      const drawn = data.x0.length.toLocaleString("en"), here = rows.length.toLocaleString("en");
      document.getElementById("drawn").textContent = step > 1
        ? drawn + " of " + here + " messages are drawn. Zoom in to see all."
        : here + " messages are drawn.";
    }
    const redraw = onZoom(time, draw);
    draw();
    for (const box of boxes) { box.addEventListener("change", redraw); }

    const choice = document.getElementById("moment");
    if (!choice) { return; }
    choice.addEventListener("change", function () {
      if (!choice.value) { return; }
      const moment = Number(choice.value) * 1e6;
      let row = all.sent.findIndex((sent) => sent >= moment);
      row = row < 0 ? count - 1 : row;
      const from = Math.max(0, row - 10), to = Math.min(count - 1, row + 30);
      const margin = (end(to) - all.sent[from]) / 20 + 1;
      time.setv({start: (all.sent[from] - margin) / 1e6, end: (end(to) + margin) / 1e6});
    });
  }
  begin();
})();
