// One call of the official JavaScript client: node calls.mjs NAME OPTIONS. OPTIONS and the answer on stdout are JSON.
import Replicate, { validateWebhook } from "replicate";
import { Webhook } from "standardwebhooks";

const [name, given] = process.argv.slice(2);
const { baseUrl, token, headers = {}, loseFirstAnswer = false, ...options } = JSON.parse(given);

const requests = [];
async function recordingFetch(url, init) {
  requests.push(init.method);
  const response = await fetch(url, { ...init, headers: { ...init.headers, ...headers } });
  if (loseFirstAnswer && requests.length === 1) throw new TypeError("fetch failed");
  return response;
}

const client = () => new Replicate({ auth: token, baseUrl, fetch: recordingFetch });
const replicate = client();
const order = () => replicate.predictions.create(options.order);

const calls = {
  async run() {
    const seen = [];
    const { ref, attach, ...rest } = options;
    if (attach) rest.input.image = Buffer.from(attach);
    const output = await replicate.run(ref, rest, (prediction) => seen.push([prediction.status, prediction.output]));
    return { output, seen };
  },
  async stream() {
    const { ref, ...rest } = options;
    const events = [];
    for await (const { event, data, id } of replicate.stream(ref, rest)) events.push({ event, data, id });
    return events;
  },
  create: order,
  wait: () => replicate.wait({ id: options.id, status: "starting" }, { interval: 50 }),
  cancel: () => replicate.predictions.cancel(options.id),
  async createMany() {
    const ids = [];
    while (ids.length < options.count) ids.push((await order()).id);
    return ids;
  },
  async pages() {
    const pages = [];
    for await (const page of replicate.paginate(replicate.predictions.list)) pages.push(page.map(({ id }) => id));
    return pages;
  },
  async together() {
    const clients = Array.from({ length: options.count }, client);
    const made = await Promise.all(clients.map((each) => each.predictions.create(options.order)));
    return made.map(({ id }) => id);
  },
  async validate() {
    const { key } = await replicate.webhooks.default.secret.get();
    const { body, signed } = options;
    return {
      raw: await validateWebhook({ headers: signed, body }, key),
      parsed: await validateWebhook({ headers: signed, body: JSON.parse(body) }, key),
      forged: await validateWebhook({ headers: signed, body: body.replace("succeeded", "canceled") }, key),
      standard: new Webhook(key).verify(body, signed).status,
    };
  },
  async surroundings() {
    const [owner, model] = options.model.split("/");
    const found = await replicate.models.get(owner, model);
    return {
      account: (await replicate.accounts.current()).username,
      models: (await replicate.models.list()).results.map(({ name }) => name),
      searched: (await replicate.models.search(options.words)).results.map(({ name }) => name),
      version: (await replicate.models.versions.get(owner, model, found.latest_version.id)).id === found.latest_version.id,
      versions: (await replicate.models.versions.list(owner, model)).results.length,
      hardware: await replicate.hardware.list(),
      deployment: (await replicate.deployments.get(owner, model)).current_release.model,
      deployed: (await replicate.deployments.predictions.create(owner, model, options.order)).model,
    };
  },
};

let answer;
try {
  answer = { result: await calls[name]() };
} catch (error) {
  answer = { error: error.message, status: error.response?.status, retryAfter: error.response?.headers.get("retry-after") };
}
process.stdout.write(JSON.stringify({ ...answer, requests }));
