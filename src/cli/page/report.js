// The scripts of a report: where a number comes from, any two evaluations compared, saliency maps side by side, and a
// search through the stages. The page reads without them.
'use strict';
(() => {
  const by = id => document.getElementById(id);
  const make = (tag, more = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(more)) {
      if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
      else if (name === 'class') element.className = value;
      else element.setAttribute(name, value);
    }
    element.append(...children.filter(child => child != null));
    return element;
  };
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const number = (value, digits = 1) => value.toFixed(digits).replace('-', '−');
  const signed = value => (value > 0 ? '+' : '') + number(100 * value);
  const percent = value => number(100 * value);
  const seconds = s => s < 0.0995 ? `${Math.round(1000 * s)} ms` : s < 9.95 ? `${s.toFixed(1)} s`
    : s < 59.5 ? `${Math.round(s)} s` : s < 3600 ? `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`
    : `${Math.floor(s / 3600)} h ${Math.round(s % 3600 / 60)} min`;

  // Statistics: the same formulas as the engine's (results/counts.rs, results/paired.rs).
  const Z = 1.959963984540054;
  const wilson = (hits, n) => {
    const p = hits / n, z2 = Z * Z;
    const middle = (p + z2 / (2 * n)) / (1 + z2 / n);
    const reach = Z * Math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n);
    return [Math.max(0, middle - reach), Math.min(1, middle + reach)];
  };
  const agrestiMin = (b, c, n) => {
    [b, c, n] = [b + 0.5, c + 0.5, n + 2];
    const middle = (b - c) / n, reach = Z * Math.sqrt(Math.max(0, b + c - (b - c) ** 2 / n)) / n;
    return [Math.max(-1, middle - reach), Math.min(1, middle + reach)];
  };
  const mcnemar = (b, c) => {
    if (b === c) return 1;
    const few = Math.min(b, c), all = b + c;
    let largest = -all * Math.LN2;
    for (let k = 0; k < few; k++) largest += Math.log(all - k) - Math.log(k + 1);
    let term = 1, sum = 0;
    for (let k = few; k >= 0; k--) {
      sum += term;
      term *= k / (all - k + 1);
      if (term < sum * 1e-18) break;
    }
    return Math.min(1, 2 * sum * Math.exp(largest));
  };
  const pWords = p => p < 0.001 ? 'p < 0.001' : `p = ${p.toFixed(3)}`;
  const ones = byte => { let count = 0; for (; byte; byte &= byte - 1) count++; return count; };

  const load = async () => {
    const stream = new Blob([bytes(by('data').textContent)]).stream().pipeThrough(new DecompressionStream('gzip'));
    return new Response(stream).json();
  };

  // Facts below one another.
  const facts = pairs => {
    const list = make('dl', { class: 'facts' });
    for (const [name, value] of pairs) {
      if (value == null || value === '') continue;
      list.append(make('dt', {}, name), make('dd', {}, value));
    }
    return list;
  };

  // What differs between two JSON values, leaf by leaf.
  const differences = (a, b, path = '') => {
    if (JSON.stringify(a) === JSON.stringify(b)) return [];
    const isMap = value => value && typeof value === 'object' && !Array.isArray(value);
    if (!isMap(a) || !isMap(b)) return [[path, a, b]];
    const names = [...new Set([...Object.keys(a), ...Object.keys(b)])].sort();
    return names.flatMap(name => differences(a[name], b[name], path ? `${path}.${name}` : name));
  };
  // Radii and steps are fractions of 255 levels: 0.03137254901960784 reads as 8/255, as authors write it.
  const fraction = value => {
    const levels = Math.round(255 * value * 4) / 4;
    return Number.isInteger(value) || !levels || Math.abs(levels / 255 - value) > 1e-12 ? null : `${levels}/255`;
  };
  const brief = value => value === undefined ? '–' : typeof value === 'string' ? value
    : typeof value === 'number' ? fraction(value) ?? String(value) : JSON.stringify(value);
  const pretty = value => JSON.stringify(value, (name, part) => typeof part === 'number' ? fraction(part) ?? part : part, 1);

  const start = data => {
    const { run, stages, params, places, tables, evaluations, sheets } = data;
    const card = by('card');
    const quote = text => /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
    const changes = (run.profile ? ` --profile ${quote(run.profile)}` : '')
      + run.set.map(([key, value]) => ` --set ${quote(`${key}=${value}`)}`).join('');
    const command = (verb, target) => `atflow ${verb} ${quote(run.file)} ${quote(target)}${changes}`;

    const show = (title, hash, ...content) => {
      const close = make('button', { class: 'close', onclick: () => card.close() }, 'Close');
      card.replaceChildren(close, make('h2', { id: 'card-h' }, title), ...content.filter(part => part != null));
      if (!card.open) card.showModal();
      card.scrollTop = 0;
      history.replaceState(null, '', hash);
    };
    card.addEventListener('close', () => {
      document.querySelectorAll('td.chosen').forEach(cell => cell.classList.remove('chosen'));
      history.replaceState(null, '', '#');
    });

    const stageButton = index =>
      make('button', { class: 'open', onclick: () => showStage(index) }, stages[index].n);
    const listed = indices => {
      const span = make('span');
      indices.forEach((index, at) => span.append(at ? ', ' : '', stageButton(index)));
      return span;
    };
    const placeFacts = stage => {
      const place = places[stage.w];
      return [
        ['device', `${place.device}${place.device_name ? ` (${place.device_name})` : ''}, ${place.threads} thread${place.threads === 1 ? '' : 's'}, host ${place.host}`],
        ['software', `atflow ${place.atflow}${place.libtorch ? `, libtorch ${place.libtorch}` : ''}`],
        ['numerics', place.arithmetic], ['commit', place.commit],
      ];
    };
    const ancestors = index => {
      const found = new Set(), open = [index];
      while (open.length) for (const producer of Object.values(stages[open.pop()].p))
        if (!found.has(producer)) { found.add(producer); open.push(producer); }
      return [...found].sort((a, b) => a - b);
    };
    const consumers = index => stages.flatMap((stage, at) => Object.values(stage.p).includes(index) ? [at] : []);
    const checkpoints = index => ancestors(index).filter(at => stages[at].o.checkpoint);

    const showStage = index => {
      const stage = stages[index];
      const users = consumers(index);
      const outputs = Object.entries(stage.o)
        .map(([name, [digest, size]]) => `${name}: ${size.toLocaleString('en')} bytes, blake3:${digest}`).join('\n');
      show(stage.n, `#stage=${encodeURIComponent(stage.n)}`,
        facts([
          ['kind', stage.k], ['result', stage.m],
          ['in this run', stage.r == null ? 'from the cache' : `ran for ${seconds(stage.r)}`],
          ['made', `${stage.a} in ${seconds(stage.s)}`], ['from elsewhere', stage.f], ...placeFacts(stage),
          ['seed', stage.e == null ? null : String(stage.e)], ['key', make('code', {}, stage.y)],
          ['made from', Object.keys(stage.p).length ? listed([...new Set(Object.values(stage.p))]) : null],
          ['used by', users.length ? listed(users.slice(0, 40)) : null],
        ]),
        make('h3', {}, 'Parameters'), make('pre', { tabindex: '0' }, pretty(params[stage.q])),
        make('h3', {}, 'Outputs'), make('pre', { tabindex: '0' }, outputs),
        stage.l.length ? make('h3', {}, 'End of the log') : null,
        stage.l.length ? make('pre', { tabindex: '0' }, stage.l.join('\n')) : null,
        make('h3', {}, 'Make it again'),
        make('pre', { tabindex: '0' }, [command('run', stage.n), command('why', stage.n), command('verify', stage.n)].join('\n')));
    };

    const showCell = place => {
      const [t, r, c] = place.split('-').map(Number);
      const table = tables[t], cell = table?.cells[r]?.[c];
      if (!cell) return;
      const element = document.querySelector(`td[data-cell="${place}"]`);
      document.querySelectorAll('td.chosen').forEach(other => other.classList.remove('chosen'));
      element.classList.add('chosen');
      const stage = cell.v.length ? stages[cell.v[0]] : null;
      const neighbour = () => {
        for (const [row, column, where] of [[r, c - 1, 'left'], [r - 1, c, 'above'], [r, c + 1, 'right'], [r + 1, c, 'below']]) {
          const other = table.cells[row]?.[column];
          if (other?.v.length) return [where, stages[other.v[0]], table.rows[row], table.columns[column]];
        }
        return null;
      };
      let apart = null;
      const beside = stage && neighbour();
      if (beside) {
        const [where, other, row, column] = beside;
        const inputs = one => Object.fromEntries(Object.entries(one.p).map(([name, at]) => [name, stages[at].n]));
        const found = [
          ...differences(params[other.q], params[stage.q]).map(([path, a, b]) => `${path}: ${brief(b)} here, ${brief(a)} there`),
          ...differences(inputs(other), inputs(stage)).map(([path, a, b]) => `input ${path}: ${brief(b)} here, ${brief(a)} there`),
        ];
        apart = [`from the cell ${where} (${row}, ${column})`, found.join('\n') || 'nothing but the metric'];
      }
      const nets = cell.v.length ? checkpoints(cell.v[0]) : [];
      show(`${table.rows[r]} / ${table.columns[c]}`, `#cell=${place}`,
        facts([
          ['number', make('strong', {}, element.querySelector('.value').textContent)],
          ['interval', element.querySelector('.interval')?.textContent],
          ['what', table.metrics[c]],
          ['images', cell.hits == null ? cell.n.toLocaleString('en') : `${cell.hits.toLocaleString('en')} of ${cell.n.toLocaleString('en')}`],
          ['made by', cell.v.length ? listed(cell.v) : 'no result of this run'],
          ['compared with', cell.f.length ? listed(cell.f) : null],
          ['seed', stage?.e == null ? null : String(stage.e)],
          ['key', stage ? make('code', {}, stage.y) : null],
          ...nets.map(at => ['checkpoint', make('span', {}, stageButton(at), ' ', make('code', {}, `blake3:${stages[at].o.checkpoint[0]}`))]),
          ...(stage ? placeFacts(stage) : []),
        ]),
        apart ? make('h3', {}, `What differs ${apart[0]}`) : null,
        apart ? make('pre', { tabindex: '0' }, apart[1]) : null,
        stage ? make('h3', {}, 'Parameters') : null,
        stage ? make('pre', { tabindex: '0' }, pretty(params[stage.q])) : null,
        stage?.l.length ? make('h3', {}, 'End of the log') : null,
        stage?.l.length ? make('pre', { tabindex: '0' }, stage.l.join('\n')) : null,
        make('h3', {}, 'Make it again'),
        make('pre', { tabindex: '0' }, [
          command('run', stages[table.stage].n),
          stage ? command('verify', stage.n) : '', stage ? `atflow log ${quote(stage.n)} --pipeline ${quote(run.pipeline)}` : '',
        ].filter(Boolean).join('\n')));
    };

    for (const element of document.querySelectorAll('td[data-cell]')) {
      const value = element.querySelector('.value');
      const button = make('button', { class: 'cell', 'aria-haspopup': 'dialog', onclick: () => showCell(element.dataset.cell) });
      value.replaceWith(button);
      button.append(value);
    }
    for (const tools of document.querySelectorAll('[data-table]')) {
      for (const [name, text] of tables[tools.dataset.table].copy) {
        const button = make('button', {
          onclick: async () => {
            try { await navigator.clipboard.writeText(text); button.textContent = `${name} copied`; }
            catch { show(name, '#', make('pre', { tabindex: '0' }, text)); }
            setTimeout(() => { button.textContent = `Copy ${name}`; }, 2000);
          },
        }, `Copy ${name}`);
        tools.append(button);
      }
    }
    for (const row of document.querySelectorAll('tr[data-stage]')) {
      const head = row.querySelector('th');
      head.replaceChildren(stageButton(Number(row.dataset.stage)));
    }

    // Any two evaluations.
    const comparer = by('comparer');
    if (comparer) {
      const select = (label, at) => {
        const list = make('select', { 'aria-label': label, onchange: () => compare(true) });
        evaluations.forEach(([stage], index) => list.append(make('option', { value: index }, stages[stage].n)));
        list.selectedIndex = Math.min(at, evaluations.length - 1);
        return list;
      };
      const [first, second] = [select('First evaluation', 0), select('Second evaluation', 1)];
      const out = make('div', { 'aria-live': 'polite' });
      comparer.append(make('div', { class: 'controls' }, make('label', {}, 'first ', first), make('label', {}, 'second ', second)), out);
      const compare = remember => {
        const [a, b] = [evaluations[first.value], evaluations[second.value]];
        const row = ([stage, n, hits]) => {
          const [low, high] = wilson(hits, n);
          return make('tr', {}, make('th', { scope: 'row' }, stageButton(stage)), make('td', { class: 'number' }, `${percent(hits / n)} [${percent(low)}, ${percent(high)}]`), make('td', { class: 'number' }, n.toLocaleString('en')));
        };
        const head = make('tr', {}, ...['evaluation', 'accuracy (%) [95 % Wilson interval]', 'images'].map((name, at) => make('th', { scope: 'col', class: at ? 'number' : '' }, name)));
        const table = make('table', {}, make('thead', {}, head), make('tbody', {}, row(a), row(b)));
        let words;
        if (a[1] !== b[1] || a[3] !== b[3]) words = make('p', {}, 'The two are of other images, so there is no paired test.');
        else {
          const [x, y] = [bytes(a[4]), bytes(b[4])];
          let [onlyA, onlyB, both] = [0, 0, 0];
          for (let at = 0; at < x.length; at++) {
            onlyA += ones(x[at] & ~y[at]); onlyB += ones(y[at] & ~x[at] & 255); both += ones(x[at] & y[at]);
          }
          const n = a[1], [low, high] = agrestiMin(onlyB, onlyA, n);
          words = facts([
            ['second less first', `${signed((onlyB - onlyA) / n)} [${signed(low)}, ${signed(high)}] percentage points (95 %, Agresti and Min)`],
            ['exact McNemar test', pWords(mcnemar(onlyA, onlyB))],
            ['images', `${both} both right, ${onlyA} only the first, ${onlyB} only the second, ${n - both - onlyA - onlyB} both wrong`],
          ]);
        }
        out.replaceChildren(make('div', { class: 'wide', tabindex: '0', role: 'region', 'aria-label': 'Comparison' }, table), words);
        if (remember) history.replaceState(null, '', `#compare=${first.value},${second.value}`);
      };
      compare(false);
      comparer.pick = (a, b) => { first.value = a; second.value = b; compare(false); };
    }

    // Saliency maps: models by sets, one image at a time.
    const viewer = by('viewer');
    if (viewer) {
      let [sheet, image] = [0, 0];
      const which = make('select', { 'aria-label': 'Saliency stage', onchange: () => { sheet = Number(which.value); image = 0; draw(); } });
      sheets.forEach(({ stage }, index) => which.append(make('option', { value: index }, stages[stage].n)));
      const count = make('output');
      const step = by => { const of = sheets[sheet].images.length; image = (image + by + of) % of; draw(); };
      const mosaic = make('div', { class: 'wide', tabindex: '0', role: 'region', 'aria-label': 'Saliency maps side by side; arrow keys change the image' });
      mosaic.addEventListener('keydown', event => {
        const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (by) { event.preventDefault(); step(by); }
      });
      viewer.append(make('div', { class: 'controls' },
        make('label', {}, 'stage ', which),
        make('button', { onclick: () => step(-1) }, '← image'), count, make('button', { onclick: () => step(1) }, 'image →')), mosaic);
      const draw = () => {
        const { models, sets, images, tile: [height, width], maps, originals } = sheets[sheet];
        const scale = Math.max(1, Math.round(112 / height));
        const tile = (uri, row, rows, label) => make('span', {
          class: 'tile', role: 'img', 'aria-label': label,
          style: `width:${width * scale}px;height:${height * scale}px;background-image:url(${uri});`
            + `background-size:${images.length * width * scale}px ${rows * height * scale}px;`
            + `background-position:-${image * width * scale}px -${row * height * scale}px`,
        });
        count.textContent = `image ${images[image]} (${image + 1} of ${images.length})`;
        const heads = [...(originals ? ['image'] : []), ...models];
        const rows = [make('tr', {}, make('td'), ...heads.map(name => make('th', { scope: 'col' }, name)))];
        sets.forEach((set, s) => {
          const label = `image ${images[image]} of ${set}`;
          rows.push(make('tr', {}, make('th', { scope: 'row' }, set),
            originals && make('td', {}, tile(originals, s, sets.length, label)),
            ...models.map((model, m) => make('td', {}, tile(maps, m * sets.length + s, models.length * sets.length, `map of ${model}, ${label}`)))));
        });
        mosaic.replaceChildren(make('table', { class: 'mosaic' }, make('tbody', {}, ...rows)));
      };
      draw();
    }

    // A search through all stages.
    const finder = by('finder');
    const input = make('input', { type: 'search', placeholder: 'pgd, tested/*, ran, …', 'aria-label': 'Find stages' });
    const found = make('div', { 'aria-live': 'polite' });
    finder.append(make('div', { class: 'controls' }, make('label', {}, 'Find stages ', input)), found);
    const MOST = 200;
    input.addEventListener('input', () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      if (!words.length) return found.replaceChildren();
      const tests = words.map(word => new RegExp(word.split('*').map(part => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&')).join('.*')));
      const fits = stages.flatMap((stage, index) => {
        const text = `${stage.n} ${stage.k} ${stage.r == null ? 'cached' : 'ran'}`.toLowerCase();
        return tests.every(test => test.test(text)) ? [index] : [];
      });
      const rows = fits.slice(0, MOST).map(index => make('tr', {},
        make('th', { scope: 'row' }, stageButton(index)), make('td', {}, stages[index].k),
        make('td', { class: 'number' }, seconds(stages[index].s)), make('td', {}, stages[index].m)));
      found.replaceChildren(make('p', {}, `${fits.length} found${fits.length > MOST ? `, ${MOST} shown` : ''}`),
        make('div', { class: 'wide', tabindex: '0', role: 'region', 'aria-label': 'Stages found' }, make('table', {}, make('tbody', {}, ...rows))));
    });

    // Every view is a link.
    const follow = () => {
      const [name, value] = location.hash.slice(1).split('=');
      if (name === 'cell' && value) showCell(value);
      if (name === 'stage' && value) {
        const index = stages.findIndex(stage => stage.n === decodeURIComponent(value));
        if (index >= 0) showStage(index);
      }
      if (name === 'compare' && value && comparer) {
        comparer.pick(...value.split(','));
        comparer.scrollIntoView();
      }
    };
    addEventListener('hashchange', follow);
    follow();
  };

  if (typeof DecompressionStream === 'undefined') return;
  load().then(data => {
    document.documentElement.classList.add('has-scripts');
    start(data);
    document.documentElement.dataset.ready = 'yes';
  });
})();
