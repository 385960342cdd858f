/** Reloads the page with a notice when the session has ended, whoever ended it. */

const events = new EventSource('/session-end');
events.addEventListener('ended', ({ data }) => location.replace(`/?ended=${data}`));

// If this page itself ends the session by submitting a form, no notice is needed. A form whose event is prevented stays
// on the page, and ends nothing.
addEventListener('submit', (event) => event.defaultPrevented || events.close());
