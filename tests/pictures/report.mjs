// Looks at conflict reports that tandem has written, with a real browser and without a network:
// complains about what is wrong with them, and takes their pictures.
//
// node report.mjs BROWSER FOLDER PAGES
//
// PAGES holds report.html, whose pictures go to FOLDER, and special cases, whose pictures go beside them.

import { join } from "node:path";
import { pathToFileURL } from "node:url";

import { PICTURE_BYTES_MAX, checkReadable, must, picture, views, withPage } from "./browser.mjs";

const [browser, folder, pages] = process.argv.slice(2);
/** Special cases, and how many conflicts each tells in full. */
const SPECIAL = { none: 0, one: 1, many: 1000, hostile: 5 };
const ALL = "[...document.querySelectorAll('.one')]";
const SHOWN = `${ALL}.filter((one) => !one.hidden).length`;
const OPENED = `${ALL}.filter((one) => one.open).length`;
const GROUND = "getComputedStyle(document.body).backgroundColor";

const address = (name) => pathToFileURL(join(pages, `${name}.html`)).href;

async function open(page, name, view) {
  await page.view(view);
  await page.say("Page.navigate", { url: "about:blank" });
  await page.say("Page.navigate", { url: address(name) });
  await page.until("the script runs", "document.querySelector('#theme')?.hidden === false");
  const obeyed = await page.look("window.obeyed !== undefined || document.querySelector('img, iframe, object, link, base, form, script[src]') !== null || document.scripts.length !== 1");
  must(!obeyed, `${name}: something in a value was obeyed`);
}

async function checkCharts(page, name) {
  const drawn = "(figure) => [...figure.querySelectorAll('rect.fill, rect[class^=w]')].some((one) => { const { width, height } = one.getBoundingClientRect(); return width > 1 && height > 1; })";
  const [all, empty] = await page.look(`(() => { const all = [...document.querySelectorAll('figure')]; return [all.length, all.filter((one) => !(${drawn})(one)).length]; })()`);
  must(all === 4, `${name} has ${all} charts`);
  must(empty === 0, `${name}: ${empty} charts are empty`);
}

async function searches(page, text, fits) {
  await page.type("#search", text);
  const shown = await page.look(SHOWN);
  must(fits(shown), `a search for ${JSON.stringify(text)} shows ${shown} conflicts`);
  return shown;
}

/** Plays a reader: each control does what it says. */
async function useControls(page, name) {
  const all = await page.look(`${ALL}.length`);
  const some = await searches(page, "update deleted", (shown) => shown > 0 && shown < all);
  const found = await page.look("document.querySelector('#found').textContent");
  must(found === `${some} of ${all} match`, `${name} says of the search: ${found}`);
  await searches(page, "nobody has this", (shown) => shown === 0);
  must(await page.look("!document.querySelector('#nothing').hidden"), `${name} does not say that nothing is found`);
  await searches(page, "", (shown) => shown === all);

  await page.press(".one summary");
  must((await page.look(OPENED)) === 1, `${name}: a conflict does not open`);
  await page.press(".one summary");
  must((await page.look(OPENED)) === 0, `${name}: a conflict does not close`);
  await page.press("#open");
  must((await page.look(OPENED)) === all, `${name}: not all open`);
  await checkReadable(page, `${name}, all open,`);
  await page.press("#open");
  must((await page.look(OPENED)) === 0, `${name}: not all close`);

  const before = await page.look(GROUND);
  await page.press("#theme");
  must((await page.look(GROUND)) !== before, `${name}: the theme stays as it is`);
  await checkReadable(page, `${name}, the other theme,`);
  await page.press("#theme");
  must((await page.look(GROUND)) === before, `${name}: the theme does not come back`);
}

async function checkPrinted(page) {
  await page.look("addEventListener('beforeprint', () => { window.open_printed = document.querySelectorAll('.one[open]').length; })");
  await page.say("Page.printToPDF");
  must((await page.look("window.open_printed")) === (await page.look(`${ALL}.length`)), "what is printed is not open");
  must((await page.look(OPENED)) === 0, "what was printed stays open");
}

async function checkReport(page) {
  for (const view of views("report", { high: 1750, long: 1500 })) {
    await open(page, "report", view);
    await checkCharts(page, view.name);
    await checkReadable(page, view.name);
    await useControls(page, view.name);
    await page.type("#search", "orders update origin differs");
    await page.look("document.querySelector('.one:not([hidden])').open = true; document.activeElement.blur(); scrollTo(0, 0)");
    await picture(page, view, folder, PICTURE_BYTES_MAX);
  }
  await open(page, "report", views("report", { high: 1750, long: 1500 })[0]);
  await checkPrinted(page);
}

async function checkSpecial(page, name, told) {
  for (const view of views(name, { high: 1500, long: 1500 })) {
    await open(page, name, view);
    const all = await page.look(`${ALL}.length`);
    must(all === told, `${name} tells ${all} conflicts`);
    await checkReadable(page, view.name);
    await picture(page, view, pages);
    if (told === 0) continue;
    await page.press("#open");
    must((await page.look(OPENED)) === all, `${name}: not all open`);
    await checkReadable(page, `${view.name}, all open,`);
    await page.look("document.querySelector('main').scrollIntoView()");
    const top = await page.look("scrollY");
    await picture(page, { ...view, name: `${view.name}-open`, top }, pages);
  }
}

await withPage(browser, (url) => url.startsWith(pathToFileURL(pages).href), async (page) => {
  await page.say("Network.emulateNetworkConditions", { offline: true, latency: 0, downloadThroughput: 0, uploadThroughput: 0 });
  await checkReport(page);
  for (const [name, told] of Object.entries(SPECIAL)) await checkSpecial(page, name, told);
});
