// Looks at the dashboard of a running tandem with a real browser: complains about what is wrong with
// it, and takes its pictures.
//
// node dashboard.mjs BROWSER FOLDER ADDRESS OTHERS
//
// OTHERS gets pictures of the whole page, longer than any screen.

import { PICTURE_BYTES_MAX, checkReadable, must, picture, views, withPage } from "./browser.mjs";

const [browser, folder, address, others] = process.argv.slice(2);
const home = `http://${address}/`;
const TOTAL = "[...document.querySelectorAll('#totals tr')].slice(0, 6).map((row) => row.innerText).join()";

async function check(page, view) {
  await page.view(view);
  await page.say("Page.navigate", { url: home });
  await page.until("the link runs", "document.querySelector('#state')?.textContent === 'running'");
  await page.until("charts are drawn", "[...document.querySelectorAll('.chart .line')].some((path) => path.getAttribute('d')?.includes('L'))");
  await page.until("conflicts are listed", "document.querySelectorAll('#records tr').length > 0");
  const before = await page.look(TOTAL);
  await page.until("numbers move", `${TOTAL} !== ${JSON.stringify(before)}`);
  const hidden = await page.look("[...document.querySelectorAll('.chart')].filter((chart) => chart.getBoundingClientRect().height < 150).length");
  must(hidden === 0, `${view.name}: ${hidden} charts have no room`);
  await checkReadable(page, view.name);
}

await withPage(browser, (url) => url.startsWith(home), async (page) => {
  for (const view of views("dashboard", { high: 1010, long: 1180 })) {
    await check(page, view);
    await picture(page, view, folder, PICTURE_BYTES_MAX);
    const height = await page.look("document.documentElement.scrollHeight");
    await picture(page, { ...view, name: `${view.name}-whole`, height, beyond: true }, others);
  }
});
