/** Draws the speed panel while its results arrive. */

const panel = document.querySelector('#speed');
const form = panel.querySelector('form');
const button = form.querySelector('button');
const status = panel.querySelector('[role=status]');
const WIDTH = 320;
const HEIGHT = 120;
const TURNS = 11;
const OTHERS = ['MemoryStore', 'connect-pg-simple'];
/**
 * If the quartiles of the ratios are further apart than this share of their median, other work on the machine has
 * probably disturbed the measurement.
 */
const UNCERTAIN = 0.2;

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  button.disabled = true;
  status.textContent = 'Measuring…';
  const rates = { PgStore: [], 'connect-pg-simple': [], MemoryStore: [] };
  try {
    const response = await fetch(form.action, { method: 'POST', body: new URLSearchParams(new FormData(form)) });
    if (!response.ok)
      throw new Error(response.status === 409 ? 'Somebody else is measuring just now.' : 'That failed.');
    for await (const { store, rate } of lines(response.body)) {
      rates[store].push(rate);
      draw(rates);
    }
    status.textContent = summary(rates);
  } catch (error) {
    status.textContent = error.message;
  }
  button.disabled = false;
  button.focus();
});

/** The JSON values of a response that has one on each line. */
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
  const top = roundedUp(Math.max(...Object.values(rates).flat()));
  const [highest, middle] = panel.querySelectorAll('.rates li');
  highest.textContent = top.toLocaleString('en');
  middle.textContent = (top / 2).toLocaleString('en');
  for (const [store, values] of Object.entries(rates)) {
    const points = values.map((rate, n) => `${(n * WIDTH) / (TURNS - 1)},${HEIGHT - (rate / top) * HEIGHT}`);
    panel.querySelector(`polyline.${store}`).setAttribute('points', points.join(' '));
    const shown = values.length > 0 ? `${quantile(values, 0.5).toLocaleString('en')} / s` : '–';
    panel.querySelector(`dd[data-store=${store}]`).textContent = shown;
  }
}

/** Rounds up to two significant digits, the last one even, so that the half of it, at mid-axis, is round too. */
function roundedUp(rate) {
  const step = 2 * 10 ** Math.max(0, Math.floor(Math.log10(rate)) - 1);
  return Math.ceil(rate / step) * step;
}

/** The ratios of the stores' rates. They are computed turn by turn, since the machine's speed changes between turns. */
function summary(rates) {
  const ratios = OTHERS.map((other) => rates.PgStore.map((rate, turn) => rate / rates[other][turn]));
  const shown = ratios.map((values, n) => {
    const [low, middle, high] = [0.25, 0.5, 0.75].map((share) => Math.round(100 * quantile(values, share)));
    return `${middle} % of ${OTHERS[n]} (quartiles ${low}–${high} %)`;
  });
  const isUncertain = ratios.some(
    (values) => quantile(values, 0.75) - quantile(values, 0.25) > UNCERTAIN * quantile(values, 0.5),
  );
  const warning = isUncertain ? ' The turns differ much: this machine has other work, so that says little.' : '';
  return `Median: PgStore at ${shown.join(', ')}.${warning}`;
}

/** The value below which the given share of the values lies. */
function quantile(values, share) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) * share)] ?? 0;
}
