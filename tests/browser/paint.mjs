// Opens a page several times and prints the milliseconds to its first contentful paint and to the end of loading.
//
//   node paint.mjs CHROMIUM PAGE.html [TIMES]
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(pathToFileURL(`${process.env.ATFLOW_BROWSER_MODULES}/`));
const { chromium } = require('playwright-core');

const [, , executablePath, file, times = '5'] = process.argv;
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
const found = [];
for (let time = 0; time < Number(times); time++) {
  const page = await (await browser.newContext()).newPage();
  await page.goto(pathToFileURL(file).href, { waitUntil: 'load' });
  await page.waitForFunction(() => performance.getEntriesByName('first-contentful-paint').length, { timeout: 60000 });
  found.push(await page.evaluate(() => ({
    paint: performance.getEntriesByName('first-contentful-paint')[0].startTime,
    load: performance.getEntriesByType('navigation')[0].loadEventEnd,
  })));
  await page.context().close();
}
await browser.close();
console.log(JSON.stringify(found));
