// Opens a report in a real browser and prints what it found, as one JSON object.
//
//   node check.mjs CHROMIUM REPORT.html [SCREENSHOTS]
//
// For light, dark and print at three widths: what axe-core objects to. Once: errors of the console, requests that leave
// the page, controls that Tab does not reach, what the cards say, and the tables that stand there without scripts.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(pathToFileURL(`${process.env.ATFLOW_BROWSER_MODULES}/`));
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

const [, , executablePath, file, screenshots] = process.argv;
const url = pathToFileURL(file).href;
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
const found = { errors: [], requests: [], violations: [], unreachable: [], cards: {} };

const open = async (options = {}, withScripts = true) => {
  const context = await browser.newContext({ javaScriptEnabled: withScripts, ...options });
  const page = await context.newPage();
  page.on('console', message => { if (message.type() === 'error') found.errors.push(message.text()); });
  page.on('pageerror', error => found.errors.push(String(error)));
  page.on('request', request => {
    if (request.url() !== url && !/^(data|blob):/.test(request.url())) found.requests.push(request.url());
  });
  await page.goto(url);
  if (withScripts) await page.waitForSelector('html[data-ready]', { state: 'attached', timeout: 60000 });
  return page;
};

// The policy of the page forbids what is injected, so axe runs in a world of its own.
const inspect = async (page, what) => {
  const client = await page.context().newCDPSession(page);
  const { frameTree } = await client.send('Page.getFrameTree');
  const { executionContextId } = await client.send('Page.createIsolatedWorld', { frameId: frameTree.frame.id });
  const run = async expression => {
    const answer = await client.send('Runtime.evaluate', {
      expression, contextId: executionContextId, awaitPromise: true, returnByValue: true,
    });
    if (answer.exceptionDetails) throw new Error(answer.exceptionDetails.exception?.description);
    return answer.result.value;
  };
  await run(axe);
  const violations = await run(`axe.run(document, { resultTypes: ['violations'] }).then(result =>
    result.violations.map(v => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 200), v.nodes[0].failureSummary]))`);
  for (const [id, count, html, summary] of violations) found.violations.push({ what, id, count, html, summary });
};

const small = process.env.ATFLOW_BROWSER_SMALL === 'yes';
for (const width of small ? [1280] : [360, 1280, 2560]) {
  for (const mode of small ? ['light'] : ['light', 'dark', 'print']) {
    const page = await open({ viewport: { width, height: 900 }, colorScheme: mode === 'dark' ? 'dark' : 'light' });
    if (mode === 'print') await page.emulateMedia({ media: 'print' });
    await page.evaluate(() => document.querySelectorAll('details').forEach((details, at) => { details.open = at < 6; }));
    await inspect(page, `${mode} at ${width}`);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (wide > 1 && mode !== 'print') found.violations.push({ what: `${mode} at ${width}`, id: 'page-scrolls-sideways', count: wide });
    if (screenshots) await page.screenshot({ path: `${screenshots}/${mode}-${width}.png`, fullPage: true });
    await page.context().close();
  }
}

// Every control by Tab, in a page whose folds are open.
{
  const page = await open({ viewport: { width: 1280, height: 900 } });
  await page.evaluate(() => document.querySelectorAll('details').forEach(details => { details.open = true; }));
  const controls = await page.evaluate(() => {
    const all = [...document.querySelectorAll('a[href], button, select, input, summary, [tabindex="0"]')];
    const seen = all.filter(element => element.getClientRects().length && !element.closest('dialog'));
    seen.forEach((element, at) => { element.dataset.at = at; });
    return seen.length;
  });
  found.controls = controls;
  if (!small) {
    const reached = new Set();
    for (let step = 0; step <= controls + 5; step++) {
      await page.keyboard.press('Tab');
      const at = await page.evaluate(() => document.activeElement?.dataset.at);
      if (at !== undefined) reached.add(Number(at));
    }
    found.unreachable = await page.evaluate(reached => [...document.querySelectorAll('[data-at]')]
      .filter(element => !reached.includes(Number(element.dataset.at))).map(element => element.outerHTML.slice(0, 120)), [...reached]);
  }
  // A number by keyboard alone: its card opens, says where the number comes from, and closes with Escape.
  const cell = page.locator('button.cell').first();
  if (await cell.count()) {
    await cell.focus();
    await page.keyboard.press('Enter');
    await page.waitForSelector('dialog[open]');
    found.cards.cell = await page.locator('dialog').innerText();
    found.cards.hash = await page.evaluate(() => location.hash);
    await inspect(page, 'card of a number');
    if (screenshots) await page.screenshot({ path: `${screenshots}/card.png` });
    await page.keyboard.press('Escape');
    found.cards.closed = !(await page.evaluate(() => document.querySelector('dialog').open));
  }
  const comparer = page.locator('#comparer');
  if (await comparer.count()) {
    await page.getByLabel('Second evaluation').selectOption({ index: 1 });
    found.cards.compare = await comparer.innerText();
  }
  const viewer = page.locator('#viewer');
  if (await viewer.count()) {
    const before = await viewer.locator('output').innerText();
    await viewer.locator('[role=region]').focus();
    await page.keyboard.press('ArrowRight');
    found.cards.viewer = [before, await viewer.locator('output').innerText()];
    if (screenshots) await viewer.screenshot({ path: `${screenshots}/viewer.png` });
  }
  await page.getByLabel('Find stages').fill('table');
  found.cards.finder = await page.locator('#finder').innerText();
  await page.context().close();
}

// A link to a card opens it.
if (found.cards.hash) {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(url + found.cards.hash);
  await page.waitForSelector('dialog[open]');
  found.cards.linked = await page.locator('dialog h2').innerText();
  await context.close();
}

// Without scripts the tables are there, and no control that would do nothing.
{
  const page = await open({}, false);
  found.plain = {
    tables: await page.locator('#results table').count(),
    text: (await page.locator('#results').innerText()).slice(0, 4000),
    buttons: await page.locator('button:visible').count(),
  };
  await page.context().close();
}

// How long it takes until something is seen, and until the scripts are ready: of five times.
found.times = [];
for (let turn = 0; turn < 5; turn++) {
  const page = await open();
  // On a slow machine the scripts are ready before the first frame is painted.
  const ready = await page.evaluate(() => performance.now());
  await page.waitForFunction(() => performance.getEntriesByName('first-contentful-paint').length, { timeout: 60000 });
  const paint = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0].startTime);
  found.times.push({ paint, ready });
  await page.context().close();
}
await browser.close();
console.log(JSON.stringify(found));
