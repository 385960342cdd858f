/** Says that the session has ended as soon as it has, whoever ended it. */

const events = new EventSource('/session-end');
events.addEventListener('ended', ({ data }) => location.replace(`/?ended=${data}`));

// What this page itself ends is no news here. A form that stays on the page ends nothing.
addEventListener('submit', (event) => event.defaultPrevented || events.close());
