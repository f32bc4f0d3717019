// An order as a program would place it, with the addresses of this server.

/** The same order for curl, Python and JavaScript: `[{name, text}]`. `origin` is the API's base without a slash at its end. */
export function snippets(prediction, origin) {
  // A program has no use for previews.
  const { preview: _, ...given } = prediction.input;
  const input = { ...given, seed: prediction.seed };
  return [
    { name: "curl", text: curl(prediction.model, input, origin) },
    { name: "Python", text: python(prediction.model, input, origin) },
    { name: "JavaScript", text: javascript(prediction.model, input, origin) },
  ];
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function curl(model, input, origin) {
  const body = JSON.stringify({ version: model, input });
  return `curl ${origin}/v1/predictions \\
  -H "Authorization: Bearer $REPLICATE_API_TOKEN" \\
  -H 'Content-Type: application/json' -H 'Prefer: wait=30' \\
  -d ${quoted(body)}`;
}

function python(model, input, origin) {
  const fields = Object.entries(input).map(([name, value]) => `"${name}": ${pythonValue(value)}`);
  return `import os
import replicate

client = replicate.Client(base_url="${origin}", api_token=os.environ["REPLICATE_API_TOKEN"])
uri = client.run("${model}", input={${fields.join(", ")}})`;
}

function pythonValue(value) {
  return { true: "True", false: "False", null: "None" }[String(value)] ?? JSON.stringify(value);
}

function javascript(model, input, origin) {
  return `import Replicate from "replicate";

const replicate = new Replicate({ auth: process.env.REPLICATE_API_TOKEN, baseUrl: "${origin}/v1" });
const uri = await replicate.run("${model}", { input: ${JSON.stringify(input)} });`;
}
