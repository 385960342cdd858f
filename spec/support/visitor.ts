/** A visitor who keeps cookies, as a browser does. */

export class Visitor {
  cookie = '';
  readonly #origin: string;

  constructor(origin: string, cookie = '') {
    this.#origin = origin;
    this.cookie = cookie;
  }

  another(cookie?: string): Visitor {
    return new Visitor(this.#origin, cookie);
  }

  async request(method: string, path: string, form?: Record<string, string>): Promise<Response> {
    const response = await fetch(this.#origin + path, {
      method,
      headers: { cookie: this.cookie, connection: 'close' },
      redirect: 'manual',
      ...(form ? { body: new URLSearchParams(form) } : {}),
    });
    const [set] = response.headers.getSetCookie();
    if (set) this.cookie = set.split(';')[0] as string;
    return response;
  }

  async json(method: string, path: string, form?: Record<string, string>): Promise<any> {
    return (await this.request(method, path, form)).json();
  }
}
