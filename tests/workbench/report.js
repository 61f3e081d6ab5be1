// The page's own script: the address's moment, the terms on the bands, and the key that is shown.
(function () {
  function begin() {
    const doc = (window.Bokeh.documents || [])[0];
    const time = doc && doc.get_model_by_name("time");
    if (!time) { window.setTimeout(begin, 20); return; }
    const first = time.start, last = time.end;

    function go() {
      const found = /^#t=([-+.\de]+),([-+.\de]+)$/.exec(window.location.hash);
      const start = found ? Number(found[1]) : first, end = found ? Number(found[2]) : last;
      if (isFinite(start) && isFinite(end) && start < end) { time.setv({start, end}); }
    }
    let waiting = 0;
    function note() {
      window.clearTimeout(waiting);
      waiting = window.setTimeout(function () {
        const all = time.start === first && time.end === last;
        const round = (x) => Number(x.toFixed(6));
        const moment = all ? "" : "#t=" + round(time.start) + "," + round(time.end);
        if (moment !== window.location.hash) {
          window.history.replaceState(null, "", moment || window.location.pathname);
        }
      }, 200);
    }
    go();
    window.addEventListener("hashchange", go);
    time.properties.start.change.connect(note);
    time.properties.end.change.connect(note);

    const bands = doc.get_model_by_name("life");
    const terms = doc.get_model_by_name("terms");
    let fitting = 0;
    function fit() {
      fitting = 0;
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
    function refit() { fitting = fitting || window.requestAnimationFrame(fit); }
    if (bands && terms) {
      refit();
      bands.properties.inner_width.change.connect(refit);
      time.properties.start.change.connect(refit);
      time.properties.end.change.connect(refit);
    }

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
          for (const name of Object.keys(rows)) { rows[name].push(data[name][row]); }
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
  begin();
})();
