/** Draws the speed panel while its results come in. */

const panel = document.querySelector('#speed');
const form = panel.querySelector('form');
const button = form.querySelector('button');
const status = panel.querySelector('[role=status]');
const WIDTH = 320;
const HEIGHT = 120;
const TURNS = 11;

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  button.disabled = true;
  status.textContent = 'Measuring…';
  const rates = { PgStore: [], MemoryStore: [] };
  try {
    const response = await fetch(form.action, { method: 'POST', body: new URLSearchParams(new FormData(form)) });
    if (!response.ok)
      throw new Error(response.status === 409 ? 'Somebody else is measuring just now.' : 'That failed.');
    for await (const { store, rate } of lines(response.body)) {
      rates[store].push(rate);
      draw(rates);
    }
    const [pg, memory] = [median(rates.PgStore), median(rates.MemoryStore)];
    status.textContent = `Median: PgStore at ${Math.round((100 * pg) / memory)} % of MemoryStore.`;
  } catch (error) {
    status.textContent = error.message;
  }
  button.disabled = false;
  button.focus();
});

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (text + value).split('\n');
    text = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

function draw(rates) {
  const top = 1.1 * Math.max(...Object.values(rates).flat());
  for (const [store, values] of Object.entries(rates)) {
    const points = values.map((rate, n) => `${(n * WIDTH) / (TURNS - 1)},${HEIGHT - (rate / top) * HEIGHT}`);
    panel.querySelector(`polyline.${store}`).setAttribute('points', points.join(' '));
    panel.querySelector(`dd[data-store=${store}]`).textContent = values.length
      ? `${median(values).toLocaleString('en')} / s`
      : '–';
  }
}

function median(values) {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
}
